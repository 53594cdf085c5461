"""A party records the rounds that were chosen, across a resumed run too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import optim

from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.fl import CaptureRounds, GradientCapture
from secretflow.ml.nn.fl.audit import load_capture

from .conftest import BATCH, LR


def test_captures_of_the_first_the_last_and_each_round_under_a_new_mask(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], tmp_path: Any
) -> None:
    rounds = CaptureRounds(first=True, last=True, after_mask_change=True)
    model = make_model(
        prune_end_rate=0.5,
        prune_percent=30,
        optimizer=optim.Adam,
        gradient_capture=GradientCapture(f"{tmp_path}/captures", "bob", rounds),
    )
    history = model.fit(*data, epochs=4, batch_size=BATCH, verbose=0)
    # Three rounds an epoch; steps of pruning end the first three epochs.
    captures = {
        number: load_capture(tmp_path / "captures" / f"round-{number}") for number in (0, 3, 6, 9, 11)
    }
    assert len(list((tmp_path / "captures").iterdir())) == len(captures)
    rates = history.local_history["bob_density"]
    living = [1.0, rates[0], rates[1], rates[2], rates[2]]
    assert [capture.density for capture in captures.values()] == pytest.approx(living)
    assert captures[0].optimizer is not None and captures[0].optimizer["name"] == "Adam"
    assert captures[0].optimizer["groups"][0]["lr"] == LR


def test_a_resumed_run_counts_on_and_captures_into_the_same_folder(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], tmp_path: Any
) -> None:
    chosen = GradientCapture(f"{tmp_path}/captures", "bob", CaptureRounds(first=True, last=True))
    fit = {"epochs": 1, "batch_size": BATCH, "verbose": 0}
    model = make_model(gradient_capture=chosen)
    model.fit(*data, **fit)
    model.save_model(f"{tmp_path}/model", is_test=True)
    resumed = make_model(gradient_capture=chosen)
    with pytest.raises(FileExistsError, match="captures/round-0 is there already"):
        resumed.fit(*data, **fit)
    resumed.load_model(f"{tmp_path}/model", is_test=True)
    for _ in range(2):
        resumed.fit(*data, **fit)
    assert {path.name for path in (tmp_path / "captures").iterdir()} == {
        "round-0",
        "round-2",
        "round-5",
        "round-8",
    }


def test_a_capture_by_nobody_is_refused(make_model: Callable[..., FLModel]) -> None:
    with pytest.raises(ValueError, match=r"party must be one of \['alice', 'bob'\], got 'alcie'"):
        make_model(gradient_capture=GradientCapture("/nowhere", "alcie"))
