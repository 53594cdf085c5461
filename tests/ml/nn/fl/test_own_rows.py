"""Every row is trained on once an epoch, and any seed gives the same run twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from secretflow.ml.nn.core.torch import BaseModule, metric_wrapper
from secretflow.ml.nn.fl.worker.data import EvenBatches, batch_loader, rows_by_round

from .bring import (
    CLASSES,
    FEATURES,
    build,
    fitted,
    linear,
    spread,
    table,
    weights_of,
    worker_of,
)


class Watching(BaseModule):
    """A linear net that keeps the rows of each batch it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.batches: list[np.ndarray] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        x, y = batch
        self.batches.append(x.numpy().copy())
        return F.cross_entropy(self(x), y.long())


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("rows", [(59, 30), (30, 59), (31, 30), (90, 61, 30), (1000, 30)])
def test_each_party_trains_on_every_row_once_an_epoch(
    devices: SimpleNamespace, rows: tuple[int, ...], shuffle: bool
) -> None:
    x, y = table(sum(rows))
    model = build(devices, Watching, parties=len(rows))
    model.fit(
        spread(devices, rows, x), spread(devices, rows, y), batch_size=1, epochs=2, verbose=0, shuffle=shuffle
    )
    ends = np.cumsum([0, *rows])
    for party in range(len(rows)):
        batches = worker_of(model, party).model.batches
        assert len(batches) == 2 * 30
        for epoch in (batches[:30], batches[30:]):
            sizes = [len(batch) for batch in epoch]
            assert max(sizes) - min(sizes) <= 1
            seen, held = np.concatenate(epoch), x[ends[party] : ends[party + 1]]
            if not shuffle:
                np.testing.assert_array_equal(seen, held)
            np.testing.assert_array_equal(np.sort(seen, axis=0), np.sort(held, axis=0))


@pytest.mark.parametrize("rate", [0.3, 0.07, 1.0])
def test_a_rate_of_sampling_leaves_no_row_out(devices: SimpleNamespace, rate: float) -> None:
    model = fitted(devices, (47, 20), Watching, batch_sampling_rate=rate)
    assert [sum(map(len, worker_of(model, k).model.batches)) for k in range(2)] == [47, 20]


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, float("nan")])
def test_a_rate_that_is_none_is_refused(devices: SimpleNamespace, rate: float) -> None:
    with pytest.raises(ValueError, match="batch_sampling_rate must be a number above 0 and at most 1"):
        fitted(devices, (20, 20), linear, nn.CrossEntropyLoss, batch_sampling_rate=rate)


def test_a_party_with_fewer_rows_than_batches_is_named(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"batch_sampling_rate must be at least 0.5, for bob has 2 rows"):
        fitted(devices, (40, 2), linear, nn.CrossEntropyLoss, batch_sampling_rate=0.1)


def test_a_batch_size_that_would_become_thousands_names_the_steps_that_do_not(
    devices: SimpleNamespace,
) -> None:
    with pytest.raises(ValueError, match=r"2560 rows each at alice; steps_per_epoch=32 and shuffle"):
        fitted(devices, (4000, 200), linear, nn.CrossEntropyLoss, batch_size=128)
    asked = {"batch_size": 128, "steps_per_epoch": 32, "shuffle": True}
    model = fitted(devices, (4000, 200), Watching, **asked)
    assert [len(batch) for batch in worker_of(model).model.batches] == [128] * 32


def test_a_large_batch_that_was_asked_for_is_taken(devices: SimpleNamespace) -> None:
    model = fitted(devices, (2100, 2000), Watching, batch_size=2000)
    assert len(worker_of(model).model.batches[0]) == 2100


@pytest.mark.parametrize(("rows", "batches"), [(7, 3), (9, 2), (100, 33)])
def test_the_rows_of_even_batches_are_known_beforehand(rows: int, batches: int) -> None:
    loader = batch_loader([torch.arange(rows)], max(1, rows // batches // 2), batches=batches)
    assert isinstance(loader.batch_sampler, EvenBatches)
    dealt = [len(batch) for (batch,) in loader]
    assert len(dealt) == batches and sum(dealt) == rows
    expected = [sum(dealt[k : k + 2]) for k in range(0, batches, 2)]
    assert rows_by_round(loader, batches, 2) == expected


def test_a_poisson_sampler_draws_each_row_with_its_rate(devices: SimpleNamespace) -> None:
    x, y = table(400)
    for row in range(400):
        x[row, 0] = row
    model = build(devices, Watching, lr=0.0)
    held = spread(devices, (300, 100), x), spread(devices, (300, 100), y)
    model.fit(*held, batch_sampling_rate=0.1, sampler_method="poisson", epochs=20, verbose=0, random_seed=1)
    batches = worker_of(model).model.batches
    sizes = np.array([len(batch) for batch in batches])
    assert len(batches) == 200 and len(set(sizes)) > 10
    assert abs(sizes.mean() - 30) < 2 and sizes.min() > 0
    assert all(len(np.unique(batch[:, 0])) == len(batch) for batch in batches)
    counts = np.bincount(np.concatenate(batches)[:, 0].astype(int), minlength=300)
    assert counts[:300].min() > 0 and counts.max() < 60


@pytest.mark.parametrize("strategy", ["fed_avg_w_prune", "fed_avg_w"])
def test_a_sampler_that_there_is_not_is_named(devices: SimpleNamespace, strategy: str) -> None:
    with pytest.raises(ValueError, match=r"sampler_method must be one of 'batch'.*got 'possion'"):
        fitted(
            devices,
            (9, 9),
            linear,
            nn.CrossEntropyLoss,
            sampler_method="possion",
            options={"strategy": strategy},
        )


@pytest.mark.parametrize("strategy", ["fed_avg_w_prune", "fed_avg_w", "scaffold"])
@pytest.mark.parametrize("seed", [0, np.int64(0), 7])
def test_any_seed_gives_the_same_run_twice(devices: SimpleNamespace, strategy: str, seed: Any) -> None:
    x, y = table(60)
    held = spread(devices, (40, 20), x), spread(devices, (40, 20), y.astype(np.float32))

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.5), nn.Linear(8, CLASSES))

    runs = []
    for _ in range(2):
        metrics = [metric_wrapper(MulticlassAccuracy, num_classes=CLASSES)]
        model = build(devices, net, nn.CrossEntropyLoss, metrics, strategy=strategy, random_seed=seed)
        torch.seed()
        model.fit(
            *held, batch_size=5, epochs=2, shuffle=True, verbose=0, random_seed=seed, validation_data=held
        )
        runs.append(weights_of(model))
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_seed_0_of_the_model_gives_the_same_weights_twice(devices: SimpleNamespace) -> None:
    runs = []
    for _ in range(2):
        torch.seed()
        runs.append(weights_of(build(devices, linear, nn.CrossEntropyLoss, random_seed=0)))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
