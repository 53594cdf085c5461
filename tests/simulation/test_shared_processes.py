"""Parties that share processes: the numbers of a process each, and failures that leave nobody waiting."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray.exceptions import RayActorError
from torch import nn

import secretflow as sf
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.device import PYU
from secretflow.ml.nn import FLModel
from secretflow.security.aggregation import SecurePruneAggregator

from .training import BATCH, DIES, FAILS, make_data, make_model, model_of

FEATURES, CLASSES, ROWS = 8, 3, 60


class Noisy(nn.Module):
    """Draws in every step: the generators of parties in one process must not mix."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(FEATURES, 12), nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(nn.functional.dropout(torch.relu(self.hidden(x)), 0.3, self.training))


def noisy_model(server: PYU, parties: list[PYU], **options: Any) -> FLModel:
    return model_of(Noisy, server, parties, **options)


def rows_of(parties: list[PYU]) -> dict[str, Any]:
    x, y = {}, {}
    for seed, party in enumerate(parties):
        rows = np.random.default_rng(seed).normal(size=(ROWS + 8 * seed, FEATURES)).astype(np.float32)
        labels = np.eye(CLASSES, dtype=np.float32)[rows[:, :CLASSES].argmax(axis=1)]
        x[party], y[party] = (party(lambda v=value: v)() for value in (rows, labels))
    return {name: FedNdarray(parts, PartitionWay.HORIZONTAL) for name, parts in (("x", x), ("y", y))}


def trained(server: PYU, parties: list[PYU], **options: Any) -> tuple[Any, list[Any], FLModel]:
    """History, everybody's weights and the model after three epochs, of which one goes on from the others."""
    model, data = noisy_model(server, parties, **options), rows_of(parties)
    how = {"batch_size": 12, "shuffle": True, "random_seed": 5, "verbose": 0}
    model.fit(**data, **how, epochs=2)
    history = model.fit(**data, **how, epochs=1, validation_data=(data["x"], data["y"]))
    return history, sf.reveal([worker.get_weights() for worker in model._workers.values()]), model


@pytest.mark.parametrize("options", [{}, {"mask_scope": "global"}], ids=["local masks", "one mask"])
def test_parties_in_two_processes_have_the_bits_of_a_process_each(
    ray_devices: SimpleNamespace, away: list[int], options: dict[str, Any]
) -> None:
    parties = [ray_devices.alice, ray_devices.bob, ray_devices.davy]
    expected, expected_weights, alone = trained(ray_devices.carol, parties, **options)
    messages, away[:] = list(away), []
    history, weights, model = trained(ray_devices.carol, parties, worker_processes=2, **options)
    assert sum(away) == sum(messages) > 0
    for own, same in zip(weights, expected_weights, strict=True):
        for array, expected_array in zip(own, same, strict=True):
            np.testing.assert_array_equal(array, expected_array)
    timed = {"seconds", "train_seconds", "aggregate_seconds", "evaluate_seconds"}
    assert history.global_history.keys() == expected.global_history.keys()
    for column in history.global_history.keys() - timed:
        assert history.global_history[column] == expected.global_history[column], column
    processes = {id(worker.process) for worker in model._workers.values()}
    assert len(processes) == 2 and not any(hasattr(w, "process") for w in alone._workers.values())


def test_a_party_that_fails_in_a_shared_process_says_why_and_the_next_fit_is_right(
    ray_devices: SimpleNamespace,
) -> None:
    model = make_model(ray_devices, worker_processes=1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="this row cannot be learned"):
            model.fit(**make_data(ray_devices, FAILS), batch_size=BATCH, epochs=1, verbose=0)
    assert model.epochs_trained() == 0
    model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=2, verbose=0)
    one, other = sf.reveal([worker.get_weights() for worker in model._workers.values()])
    np.testing.assert_array_equal(one[1], other[1])  # a bias, which is not pruned


def test_a_shared_process_that_dies_leaves_nobody_waiting(ray_devices: SimpleNamespace) -> None:
    model = make_model(ray_devices, worker_processes=2)
    with pytest.raises(RayActorError):
        model.fit(**make_data(ray_devices, DIES), batch_size=BATCH, epochs=1, verbose=0)
    assert sf.reveal(model._workers[ray_devices.alice].epochs_trained()) == 0  # still answers


def test_processes_are_shared_in_simulations_of_pruning_alone(devices: SimpleNamespace) -> None:
    parties = [devices.alice, devices.bob]
    with pytest.raises(ValueError, match=r"^worker_processes must be .*, got 0"):
        noisy_model(devices.carol, parties, worker_processes=0)
    assert noisy_model(devices.carol, parties, worker_processes=2)  # one process has them all
    with pytest.raises(ValueError, match=r"with worker_processes=2, got 'fed_avg_w'"):
        FLModel(
            server=devices.carol,
            device_list=parties,
            aggregator=SecurePruneAggregator(devices.carol, parties),
            strategy="fed_avg_w",
            backend="torch",
            worker_processes=2,
        )
