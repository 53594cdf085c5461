"""Rounds over channels from party to server: the same training, and errors that reach the driver."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.exceptions import RayActorError, RaySystemError
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Accuracy

import secretflow as sf
import secretflow.distributed as sfd
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.distributed.primitive import DISTRIBUTION_MODE
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks.callback import Callback
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.ml.nn.fl.session import FitSession
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.transport.local import LocalTransport

FEATURES, CLASSES, ROWS, BATCH = 8, 3, 60, 4
ROUNDS = ROWS // BATCH
BROKEN_ROUND = 6
FAILS, DIES = 1e6, 2e6


class Net(nn.Module):
    """Fails, or takes its process with it, when it meets the number that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, 12)
        self.out = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x == FAILS).any():
            raise RuntimeError("this row cannot be learned")
        if (x == DIES).any():
            os._exit(1)
        return self.out(torch.relu(self.hidden(x)))


def make_model(devices: SimpleNamespace, **options: Any) -> FLModel:
    parties = [devices.alice, devices.bob]
    return FLModel(
        server=devices.carol,
        device_list=parties,
        model=TorchModel(
            Net,
            nn.CrossEntropyLoss,
            optim_wrapper(optim.Adam, lr=1e-2),
            [metric_wrapper(Accuracy, task="multiclass", num_classes=CLASSES)],
        ),
        aggregator=SecurePruneAggregator(devices.carol, parties),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=1,
        **{"prune_end_rate": 0.3, "prune_percent": 30, **options},
    )


def make_data(
    devices: SimpleNamespace, of_bob: float | None = None, broken_round: int = BROKEN_ROUND
) -> dict[str, Any]:
    """Rows of both parties; ``of_bob`` stands in one of Bob's, in ``broken_round``."""
    x, y = {}, {}
    for seed, party in enumerate((devices.alice, devices.bob)):
        rows = np.random.default_rng(seed).normal(size=(ROWS, FEATURES)).astype(np.float32)
        labels = np.eye(CLASSES, dtype=np.float32)[rows[:, :CLASSES].argmax(axis=1)]
        if of_bob is not None and party == devices.bob:
            rows[(broken_round - 1) * BATCH] = of_bob
        x[party], y[party] = (party(lambda v=value: v)() for value in (rows, labels))
    return {name: FedNdarray(parts, PartitionWay.HORIZONTAL) for name, parts in (("x", x), ("y", y))}


def fitted(devices: SimpleNamespace, epochs: int = 3, **options: Any) -> tuple[FLModel, Any, list[Any]]:
    model = make_model(devices, **options)
    history = model.fit(**make_data(devices), batch_size=BATCH, epochs=epochs, verbose=0, random_seed=5)
    return model, history, sf.reveal([worker.get_weights() for worker in model._workers.values()])


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages of each party went without the driver, each time they did."""
    counts: list[int] = []
    run = LocalTransport.run

    def counted(self: LocalTransport, begin: Any, exchanges: int, rounds: int = 0) -> Any:
        counts.append(exchanges)
        return run(self, begin, exchanges, rounds)

    monkeypatch.setattr(LocalTransport, "run", counted)
    return counts


@pytest.mark.parametrize(
    ("options", "agreements"),
    [
        ({}, 3),
        ({"prune_freq": 4, "regrow_percent": 20}, 12),  # regrowth goes on at the end rate
        ({"prune_freq": 1, "prune_percent": 10}, 14),
        ({"mask_scope": "global", "prune_freq": 4}, 0),
        ({"withhold_percent": 10}, 3),
    ],
    ids=[
        "local masks",
        "pruned and regrown within epochs",
        "pruned every round",
        "one mask, pruned within epochs",
        "with updates withheld",
    ],
)
def test_training_is_the_same_to_the_last_bit(
    ray_devices: SimpleNamespace, away: list[int], options: dict[str, Any], agreements: int
) -> None:
    _, history, weights = fitted(ray_devices, **options)
    # Before the first round sample counts, masks of the parties' own and weights are exchanged.
    start = 2 if options.get("mask_scope") == "global" else 3
    assert sum(away) == start + 3 * ROUNDS + agreements
    away.clear()
    sfd.set_distribution_mode(DISTRIBUTION_MODE.DEBUG)
    _, expected, expected_weights = fitted(ray_devices, **options)
    assert not away
    for own, alone in zip(weights, expected_weights, strict=True):
        for array, same in zip(own, alone, strict=True):
            np.testing.assert_array_equal(array, same)
    for column in ("multiclassaccuracy", "living_rate", "payload_bytes"):
        assert history.global_history[column] == expected.global_history[column]
    for party in ("alice", "bob"):
        column = f"{party}_round_payload_bytes"
        assert [len(sizes) for sizes in history.local_history[column]] == [ROUNDS] * 3
        assert history.local_history[column] == expected.local_history[column]


@pytest.mark.parametrize("broken_round", [BROKEN_ROUND, ROUNDS])
@pytest.mark.parametrize("mask_scope", ["local", "global"])
def test_a_party_that_fails_between_rounds_says_why_and_the_next_fit_is_right(
    ray_devices: SimpleNamespace, away: list[int], broken_round: int, mask_scope: str
) -> None:
    model = make_model(ray_devices, mask_scope=mask_scope)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="this row cannot be learned"):
            model.fit(**make_data(ray_devices, FAILS, broken_round), batch_size=BATCH, epochs=1, verbose=0)
    assert model.epochs_trained() == 0
    away.clear()
    history = model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=2, verbose=0)
    assert model.epochs_trained() == len(history.global_history["multiclassaccuracy"]) == 2
    one, other = sf.reveal([worker.get_weights() for worker in model._workers.values()])
    # Biases are not pruned, so they are equal after an average.
    np.testing.assert_array_equal(one[1], other[1])
    assert sum(away) == 2 * ROUNDS + (3 + 2 if mask_scope == "local" else 2)
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


class Calls(Callback):
    """Notes which rounds it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int]] = []

    def on_train_batch_begin(self, batch: int) -> None:
        self.told.append(("begin", batch))

    def on_train_batch_end(self, batch: int) -> None:
        self.told.append(("end", batch))


def test_a_callback_for_every_round_keeps_the_rounds_together(
    ray_devices: SimpleNamespace, away: list[int]
) -> None:
    calls = Calls()
    model = make_model(ray_devices)
    model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=2, verbose=0, callbacks=[calls])
    assert calls.told == 2 * [(what, step) for step in range(ROUNDS) for what in ("begin", "end")]
    assert max(away) > 1 and len(away) < ROUNDS


def test_a_callback_that_needs_the_model_sees_each_round_when_it_is_over(
    ray_devices: SimpleNamespace,
) -> None:
    class Watch(Callback):
        needs_model_each_round = True

        def __init__(self) -> None:
            super().__init__()
            self.steps: list[int] = []
            self.weights: list[np.ndarray] = []

        def on_train_batch_end(self, batch: int) -> None:
            self.steps.append(batch)
            self.weights.append(sf.reveal(self._workers[ray_devices.alice].get_weights())[0])

    watch = Watch()
    model = make_model(ray_devices)
    model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=1, verbose=0, callbacks=[watch])
    assert watch.steps == list(range(ROUNDS))
    assert all((a != b).any() for a, b in zip(watch.weights, watch.weights[1:], strict=False))
