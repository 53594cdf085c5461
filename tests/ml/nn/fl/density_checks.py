"""Whether what is reported as living is what lives, at every party and wherever one looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secretflow as sf
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.fl.sparse_model import load_sparse

from .conftest import Task

BATCH, EPOCHS, RATE = 20, 3, 0.3


def trained(task: Task, net: Callable[[], nn.Module], **options: Any) -> tuple[FLModel, dict[str, list[Any]]]:
    model = task.make_model(net, prune_end_rate=RATE, prune_percent=50, **options)
    data = task.x, task.y
    history = model.fit(
        *data, validation_data=data, epochs=EPOCHS, batch_size=BATCH, aggregate_freq=2, verbose=0
    )
    model.predict(task.x, batch_size=BATCH)
    return model, history.local_history


def density(state: dict[str, torch.Tensor], names: tuple[str, ...]) -> float:
    return sum(int(torch.count_nonzero(state[name])) for name in names) / sum(
        state[name].numel() for name in names
    )


def assert_true(
    model: FLModel,
    columns: dict[str, list[Any]],
    net: Callable[[], nn.Module],
    names: tuple[str, ...],
    folder: Path,
) -> None:
    """At every party the weights that are not zero are those that are reported, wherever one looks."""
    model.save_model(f"{folder}/model", is_test=True)
    model.export_sparse(f"{folder}/sparse", is_test=True)
    for device, worker in model._workers.items():
        reported = columns[f"{device.party}_density"][-1]
        assert reported == pytest.approx(RATE, abs=0.02)
        mask, rate = sf.reveal(worker.prune_state())
        assert rate == reported
        arrays = dict(zip(net().state_dict(), sf.reveal(worker.get_weights()), strict=True))
        own = {name: torch.tensor(array) for name, array in arrays.items()}
        saved = torch.load(folder / device.party / "model", weights_only=True)["model_state_dict"]
        for state in (own, saved, load_sparse(folder / device.party / "sparse")):
            assert density(state, names) == pytest.approx(reported, abs=1e-9)
            for name in names:
                column = columns[f"{device.party}_density.{name}"][-1]
                assert density(state, (name,)) == pytest.approx(column, abs=1e-9)
        matrices = [array for array in arrays.values() if array.ndim >= 2]
        for entry, array in zip(mask, matrices, strict=True):
            assert entry is None or not array[entry == 0].any()
        uploaded, _ = sf.reveal(worker.train_step(None, 0, 2, refresh_data=True))
        state = {n: torch.tensor(a) for n, a in zip(arrays, uploaded, strict=True)}
        assert density(state, names) == pytest.approx(reported, abs=1e-9)
