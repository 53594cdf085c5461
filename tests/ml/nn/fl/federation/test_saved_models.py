"""Saved models are loaded whole, by parties of one epoch and of the saved settings, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import optim

import secretflow as sf
from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel

from ..conftest import CLASSES
from .conftest import BATCH, weights_of


def test_parties_of_different_epochs_do_not_train_together(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], tmp_path: Any
) -> None:
    model, further = make_model(), make_model()
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    further.fit(*data, epochs=2, batch_size=BATCH, verbose=0)
    for k, (one, epochs) in enumerate(((model, "1"), (further, "2"))):
        one.save_model(f"{tmp_path}/{epochs}", is_test=True)
        assert sf.reveal([worker.epochs_trained() for worker in one._workers.values()]) == [k + 1] * 2
    mixed = make_model()
    alice, bob = mixed._workers
    with pytest.raises(ValueError, match=r"must hold epoch 1, .*bob/2' with epoch 2"):
        mixed.load_model({alice: f"{tmp_path}/alice/1", bob: f"{tmp_path}/bob/2"})
    sf.wait(mixed._workers[bob].load_model(f"{tmp_path}/bob/2"))
    with pytest.raises(ValueError, match=r"as many epochs, got \[1, 2\]"):
        mixed.fit(*data, epochs=1, batch_size=BATCH, verbose=0)


@pytest.mark.parametrize("damage", ["cut", "foreign", "of another strategy", "of another net"])
def test_a_bad_checkpoint_changes_nothing(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], tmp_path: Any, damage: str
) -> None:
    model = make_model()
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    paths = {party: tmp_path / party.party / "model" for party in model._workers}
    model.save_model(f"{tmp_path}/model", is_test=True)
    assert [path.name for folder in tmp_path.iterdir() for path in folder.iterdir()] == ["model"] * 2
    for path in paths.values():
        content = torch.load(path)
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-100])
        elif damage == "foreign":
            path.write_text("not a checkpoint")
        elif damage == "of another strategy":
            del content["prune_mask"]
            torch.save(content, path)
        else:
            content["model_state_dict"]["out.weight"] = torch.zeros(CLASSES, 7)
            torch.save(content, path)
    before = weights_of(model)
    with pytest.raises(ValueError, match=r"model_path must be "):
        model.load_model(f"{tmp_path}/model", is_test=True)
    for one, other in zip(before, weights_of(model), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("saved", "own", "message"),
    [
        ({"optimizer": optim.SGD}, {"optimizer": optim.Adam}, r"\('SGD', \[4\]\).*\('Adam', \[4\]\)"),
        ({"mask_scope": "local"}, {"mask_scope": "global"}, "mask_scope='global'"),
    ],
)
def test_a_checkpoint_of_other_settings_changes_nothing(
    make_model: Callable[..., FLModel],
    data: tuple[FedNdarray, FedNdarray],
    tmp_path: Any,
    saved: dict[str, Any],
    own: dict[str, Any],
    message: str,
) -> None:
    model = make_model(**saved)
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    model.save_model(f"{tmp_path}/model", is_test=True)
    other = make_model(**own)
    before = weights_of(other)
    with pytest.raises(ValueError, match=message):
        other.load_model(f"{tmp_path}/model", is_test=True)
    for one, two in zip(before, weights_of(other), strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)
