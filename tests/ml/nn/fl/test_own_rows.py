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
from secretflow.security.aggregation import SecurePruneAggregator

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
    with pytest.raises(ValueError, match=r"2560 rows each at alice; steps_per_epoch='all' makes them 128"):
        fitted(devices, (4000, 200), linear, nn.CrossEntropyLoss, batch_size=128)
    model = fitted(devices, (4000, 200), Watching, batch_size=128, steps_per_epoch="all")
    sizes = [[len(batch) for batch in worker_of(model, party).model.batches] for party in range(2)]
    assert sizes == [[125] * 32, [100, 100]]


def test_a_party_of_which_the_last_rows_are_few_counts_in_every_round(devices: SimpleNamespace) -> None:
    fitted(
        devices, (1600, 1500, 37), linear, nn.CrossEntropyLoss, batch_size=32, steps_per_epoch="all", epochs=2
    )


@pytest.mark.parametrize("shuffle", [False, True])
def test_with_all_rows_batches_are_of_one_size_and_each_row_is_seen_once(
    devices: SimpleNamespace, shuffle: bool
) -> None:
    rows, sizes = (47, 20, 3), {devices.alice: 8, devices.bob: 5, devices.carol: 4}
    x, y = table(sum(rows))
    model = build(devices, Watching, parties=3)
    model.fit(
        spread(devices, rows, x),
        spread(devices, rows, y),
        batch_size=sizes,
        steps_per_epoch="all",
        shuffle=shuffle,
        epochs=2,
        verbose=0,
    )
    ends = np.cumsum([0, *rows])
    for party, size in enumerate(sizes.values()):
        batches = worker_of(model, party).model.batches
        count = -(-rows[party] // size)
        assert len(batches) == 2 * count
        for epoch in (batches[:count], batches[count:]):
            lengths = [len(batch) for batch in epoch]
            assert max(lengths) <= size and max(lengths) - min(lengths) <= 1
            held = x[ends[party] : ends[party + 1]]
            np.testing.assert_array_equal(np.sort(np.concatenate(epoch), axis=0), np.sort(held, axis=0))


def test_each_party_trains_on_the_rows_that_the_user_says(devices: SimpleNamespace) -> None:
    steps, sizes = {devices.alice: 9, devices.bob: 4}, {devices.alice: 6, devices.bob: 2}
    how = {"batch_size": sizes, "steps_per_epoch": steps, "shuffle": True, "epochs": 2}
    model = fitted(devices, (30, 10), Watching, **how)
    seen = [[len(batch) for batch in worker_of(model, party).model.batches] for party in range(2)]
    assert seen == [[6] * 18, [2] * 8]


@pytest.mark.parametrize(
    ("aggregate_freq", "rounds"), [(1, [(0, 2), (2, 4), (4, 6), (6, 9)]), (3, [(0, 6), (6, 9)])]
)
def test_with_steps_of_ones_own_a_round_averages_what_plain_torch_averages(
    devices: SimpleNamespace, aggregate_freq: int, rounds: list[tuple[int, int]]
) -> None:
    rows, size = (34, 13), 4  # 9 and 4 batches
    x, y = table(sum(rows))
    aggregator = SecurePruneAggregator(devices.carol, [devices.alice, devices.bob], ring_bits=64)
    model = build(devices, Watching, aggregator=aggregator)
    model.fit(
        spread(devices, rows, x),
        spread(devices, rows, y),
        batch_size=size,
        steps_per_epoch="all",
        aggregate_freq=aggregate_freq,
        verbose=0,
    )
    torch.manual_seed(3)
    shared = {name: value.clone() for name, value in Watching().state_dict().items()}
    tensors = [(torch.tensor(x[:34]), torch.tensor(y[:34])), (torch.tensor(x[34:]), torch.tensor(y[34:]))]
    own = [rounds, [(k * aggregate_freq, min((k + 1) * aggregate_freq, 4)) for k in range(len(rounds))]]
    for this in zip(*own, strict=True):
        trained = []
        for (features, labels), (first, last) in zip(tensors, this, strict=True):
            net = Watching()
            net.load_state_dict(shared)
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            parts = torch.arange(len(features)).tensor_split(-(-len(features) // size))[first:last]
            for part in parts:
                optimizer.zero_grad()
                F.cross_entropy(net(features[part]), labels[part]).backward()
                optimizer.step()
            trained.append((sum(map(len, parts)), net.state_dict()))
        total = sum(count for count, _ in trained)
        shared = {name: sum(count * held[name] for count, held in trained) / total for name in shared}
    for ours, theirs in zip(weights_of(model)[:2], shared.values(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_steps_of_other_parties_are_refused(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"steps_per_epoch must be of .*\['alice', 'bob'\], got \['bob'\]"):
        fitted(devices, (9, 9), linear, nn.CrossEntropyLoss, steps_per_epoch={devices.bob: 3}, shuffle=True)


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
    assert rows_by_round(loader, [min(k + 2, batches) for k in range(0, batches, 2)]) == expected


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
