"""Rounds over channels from party to server: the same training, and errors that reach the driver."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torchmetrics import Accuracy

import secretflow as sf
import secretflow.distributed as sfd
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.distributed.primitive import DISTRIBUTION_MODE
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks.callback import Callback
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator

FEATURES, CLASSES, ROWS, BATCH = 8, 3, 60, 4
ROUNDS = ROWS // BATCH
BROKEN_ROUND = 6  # a plain one: the last of an epoch goes through the driver
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


def make_data(devices: SimpleNamespace, of_bob: float | None = None) -> dict[str, Any]:
    """Rows of both parties; ``of_bob`` stands in one of Bob's, in :data:`BROKEN_ROUND`."""
    x, y = {}, {}
    for seed, party in enumerate((devices.alice, devices.bob)):
        rows = np.random.default_rng(seed).normal(size=(ROWS, FEATURES)).astype(np.float32)
        labels = np.eye(CLASSES, dtype=np.float32)[rows[:, :CLASSES].argmax(axis=1)]
        if of_bob is not None and party == devices.bob:
            rows[(BROKEN_ROUND - 1) * BATCH] = of_bob
        x[party], y[party] = (party(lambda v=value: v)() for value in (rows, labels))
    return {name: FedNdarray(parts, PartitionWay.HORIZONTAL) for name, parts in (("x", x), ("y", y))}


def fitted(devices: SimpleNamespace, epochs: int = 3, **options: Any) -> tuple[FLModel, Any, list[Any]]:
    model = make_model(devices, **options)
    history = model.fit(**make_data(devices), batch_size=BATCH, epochs=epochs, verbose=0, random_seed=5)
    return model, history, sf.reveal([worker.get_weights() for worker in model._workers.values()])


@pytest.mark.parametrize(
    "options",
    [{}, {"mask_scope": "global", "prune_freq": 4}, {"withhold_percent": 10}],
    ids=["local masks", "one mask, pruned within epochs", "with updates withheld"],
)
def test_training_is_the_same_to_the_last_bit(ray_devices: SimpleNamespace, options: dict[str, Any]) -> None:
    model, history, weights = fitted(ray_devices, **options)
    assert model._aggregator.connect(), "parties and server are processes of this machine"
    sfd.set_distribution_mode(DISTRIBUTION_MODE.DEBUG)
    other, expected, expected_weights = fitted(ray_devices, **options)
    assert not other._aggregator.connect()
    for own, alone in zip(weights, expected_weights, strict=True):
        for array, same in zip(own, alone, strict=True):
            np.testing.assert_array_equal(array, same)
    for column in ("multiclassaccuracy", "living_rate", "payload_bytes"):
        assert history.global_history[column] == expected.global_history[column]
    for party in ("alice", "bob"):
        column = f"{party}_round_payload_bytes"
        assert [len(sizes) for sizes in history.local_history[column]] == [ROUNDS] * 3
        assert history.local_history[column] == expected.local_history[column]


def test_a_party_that_fails_between_rounds_says_why_and_the_next_fit_is_right(
    ray_devices: SimpleNamespace,
) -> None:
    model = make_model(ray_devices)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="this row cannot be learned"):
            model.fit(**make_data(ray_devices, FAILS), batch_size=BATCH, epochs=1, verbose=0)
    history = model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=2, verbose=0)
    assert len(history.global_history["multiclassaccuracy"]) == 2
    one, other = sf.reveal([worker.get_weights() for worker in model._workers.values()])
    np.testing.assert_array_equal(
        one[1], other[1]
    )  # biases are not pruned, so they are equal after an average
    assert model._aggregator.connect()


def test_a_process_that_dies_between_rounds_leaves_nobody_waiting(ray_devices: SimpleNamespace) -> None:
    model = make_model(ray_devices)
    with pytest.raises(Exception, match=r"(?i)died|actor"):
        model.fit(**make_data(ray_devices, DIES), batch_size=BATCH, epochs=1, verbose=0)
    alice, _ = model._workers.values()
    assert sf.reveal(alice.epochs_trained()) == 0  # still answers


def test_a_callback_that_watches_rounds_sees_each_when_it_is_over(ray_devices: SimpleNamespace) -> None:
    class Watch(Callback):
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
