"""Whoever fails or dies in rounds over channels leaves nobody waiting, and the driver is told why."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.exceptions import RayActorError, RaySystemError
from torch.utils.data import DataLoader, TensorDataset

import secretflow as sf
from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.fl.session import FitSession
from secretflow.security.aggregation.secagg.transport.local import LocalTransport

from .training import BATCH, BROKEN_ROUND, DIES, FAILS, ROUNDS, make_data, make_model


class Heard(Callback):
    """Keeps of which rounds it has heard."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds: list[int] = []

    def on_train_batch_end(self, batch: int) -> None:
        self.rounds.append(batch)


@pytest.mark.parametrize("broken_round", [BROKEN_ROUND, ROUNDS])
@pytest.mark.parametrize("mask_scope", ["local", "global"])
def test_a_party_that_fails_between_rounds_says_why_and_the_next_fit_is_right(
    ray_devices: SimpleNamespace, away: list[int], broken_round: int, mask_scope: str
) -> None:
    model = make_model(ray_devices, mask_scope=mask_scope)
    for _ in range(2):
        heard = Heard()
        with pytest.raises(RuntimeError, match="this row cannot be learned"):
            model.fit(
                **make_data(ray_devices, FAILS, broken_round),
                batch_size=BATCH,
                epochs=1,
                callbacks=heard,
                verbose=0,
            )
        assert heard.rounds == list(range(broken_round - 1))
    assert model.epochs_trained() == 0
    away.clear()
    history = model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=2, verbose=0)
    assert model.epochs_trained() == len(history.global_history["multiclassaccuracy"]) == 2
    one, other = sf.reveal([worker.get_weights() for worker in model._workers.values()])
    # Biases are not pruned, so they are equal after an average.
    np.testing.assert_array_equal(one[1], other[1])
    assert sum(away) == 2 * ROUNDS + (6 + 2 if mask_scope == "local" else 5)
    sizes = [history.local_history[f"{party}_round_payload_bytes"] for party in ("alice", "bob")]
    assert [len(epoch) for epoch in (*sizes[0], *sizes[1])] == [ROUNDS] * 4
    if mask_scope == "global":
        assert sizes[0] == sizes[1]


def test_a_process_that_dies_between_rounds_leaves_nobody_waiting(
    ray_devices: SimpleNamespace, away: list[int]
) -> None:
    model = make_model(ray_devices)
    with pytest.raises(RayActorError):
        model.fit(**make_data(ray_devices, DIES), batch_size=BATCH, epochs=1, verbose=0)
    assert away
    alice, _ = model._workers.values()
    assert sf.reveal(alice.epochs_trained()) == 0  # still answers


def test_a_server_that_dies_is_what_the_driver_is_told(
    ray_devices: SimpleNamespace, away: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(ray_devices)
    run = LocalTransport.run

    def without_server(self: LocalTransport, *arguments: Any, **options: Any) -> Any:
        ray.kill(model._aggregator._group.server.data)
        return run(self, *arguments, **options)

    monkeypatch.setattr(LocalTransport, "run", without_server)
    with pytest.raises(RayActorError):
        model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=1, verbose=0)
    assert away


def built_with_a_child(arrays: list[np.ndarray], stage: str) -> tuple[DataLoader, int]:
    """A user's loader that fetches batches in a process forked from the party's."""
    assert stage == "train"
    loader = DataLoader(TensorDataset(*map(torch.tensor, arrays)), batch_size=BATCH, num_workers=1)
    return loader, len(loader)


def test_a_party_that_fails_with_a_child_process_leaves_nobody_waiting(
    ray_devices: SimpleNamespace, away: list[int]
) -> None:
    builders = {party: built_with_a_child for party in (ray_devices.alice, ray_devices.bob)}
    model = make_model(ray_devices)
    with pytest.raises(RuntimeError, match="this row cannot be learned"):
        model.fit(
            **make_data(ray_devices, FAILS), batch_size=BATCH, epochs=1, verbose=0, dataset_builder=builders
        )
    assert away


def _made_once(marker: str) -> list[Any]:
    with open(marker, "x"):
        return []


class MadeOnce:
    """No rounds at all, which only the first of two processes can read."""

    def __init__(self, marker: str) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return _made_once, (self._marker,)


@pytest.mark.parametrize("at", ["the driver", "one party"])
def test_a_round_that_a_party_never_begins_leaves_nobody_waiting(
    ray_devices: SimpleNamespace,
    away: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    model = make_model(ray_devices)
    model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=1, verbose=0)
    runs = len(away)
    never = threading.Lock() if at == "the driver" else MadeOnce(str(tmp_path / "marker"))
    error, reason = (TypeError, "pickle") if at == "the driver" else (RaySystemError, "File exists")

    def train(self: FitSession, rounds: Any) -> None:
        self._transport.run(lambda party, start: self._workers[party].begin_rounds(start, never), 4)

    with monkeypatch.context() as patch:
        patch.setattr(FitSession, "_train", train)
        with pytest.raises(error, match=reason):
            model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=1, verbose=0)
    assert len(away) == runs + 2
    model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=1, verbose=0)


@pytest.mark.parametrize("at", ["the driver", "one party"])
def test_noise_that_a_party_cannot_read_is_an_error_before_the_first_round(
    ray_devices: SimpleNamespace, tmp_path: Path, at: str
) -> None:
    model = make_model(ray_devices)
    model.dp_strategy = threading.Lock() if at == "the driver" else MadeOnce(str(tmp_path / "marker"))
    error, reason = (TypeError, "pickle") if at == "the driver" else (RaySystemError, "File exists")
    with pytest.raises(error, match=reason):
        model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=1, verbose=0)
    model.dp_strategy = None
    assert model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=1, verbose=0)
