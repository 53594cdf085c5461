"""What a module's ``get_extra_state`` gives stays at its party, and is in its checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import secretflow as sf
from secretflow.ml.nn.fl import GradientCapture
from secretflow.ml.nn.fl.audit import load_capture
from secretflow.ml.nn.fl.sparse_model import load_sparse

from .bring import CLASSES, FEATURES, build, fitted, worker_of


class Counting(nn.Module):
    """Counts its calls in an extra state: a dictionary, or a tensor of its own."""

    def __init__(self, as_tensor: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.calls = 0
        self.as_tensor = as_tensor

    def get_extra_state(self) -> Any:
        return torch.tensor(float(self.calls)) if self.as_tensor else {"calls": self.calls}

    def set_extra_state(self, state: Any) -> None:
        self.calls = int(state) if self.as_tensor else state["calls"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.linear(x)


@pytest.mark.parametrize("skip_bn", [False, True])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_it_is_not_averaged_and_is_saved(
    devices: SimpleNamespace, tmp_path: Path, as_tensor: bool, skip_bn: bool
) -> None:
    def net() -> nn.Module:
        return nn.Sequential(Counting(as_tensor), nn.Tanh())

    options = {
        "prune_end_rate": 0.5,
        "skip_bn": skip_bn,
        "gradient_capture": GradientCapture(f"{tmp_path}/capture", "alice"),
    }
    model = fitted(devices, (20, 10), net, nn.CrossEntropyLoss, epochs=2, options=options)
    arrays = [sf.reveal(worker.get_weights()) for worker in model._workers.values()]
    assert [array.shape for array in arrays[0]] == [(CLASSES, FEATURES), (CLASSES,)]
    model.save_model(f"{tmp_path}/model")
    again = build(devices, net, nn.CrossEntropyLoss, prune_end_rate=0.5, skip_bn=skip_bn)
    before = dict(worker_of(again).model.state_dict())
    again.load_model(f"{tmp_path}/model")
    saved, loaded = (worker_of(each).model.state_dict() for each in (model, again))
    (extra,) = (name for name in saved if name.endswith("_extra_state"))
    assert saved[extra] == loaded[extra] != before[extra]
    model.export_sparse(f"{tmp_path}/sparse", is_test=True)
    for held in (load_sparse(f"{tmp_path}/alice/sparse"), load_capture(f"{tmp_path}/capture").weights):
        assert set(held) == set(saved) - {extra}
