"""Buffers, dtypes, NaN and very unequal parties: right, or refused in one sentence."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secretflow as sf
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.errors import AggregationError

from .bring import (
    CLASSES,
    FEATURES,
    RNG,
    build,
    fitted,
    linear,
    spread,
    table,
    weights_of,
    worker_of,
)


class Causal(nn.Module):
    """Attention under a mask of minus infinity, which is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(1, 4)
        self.register_buffer("mask", torch.full((FEATURES, FEATURES), float("-inf")).triu(1))
        self.register_buffer("limit", torch.tensor(float("nan")))
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
        self.last = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x[:, :, None])
        return self.last(self.attention(h, h, h, attn_mask=self.mask, need_weights=False)[0][:, -1])


@pytest.mark.parametrize("mask_scope", ["local", "global"])
def test_a_buffer_that_is_no_number_stays_at_a_party(devices: SimpleNamespace, mask_scope: str) -> None:
    options = {"mask_scope": mask_scope, "prune_end_rate": 0.4, "prune_percent": 40}
    model = fitted(devices, (20, 9), Causal, nn.CrossEntropyLoss, epochs=3, options=options)
    nets = [worker_of(model, k).model for k in range(2)]
    for net in nets:
        torch.testing.assert_close(net.mask, Causal().mask)
        assert net.limit.isnan() and all(p.isfinite().all() for p in net.parameters())
    assert sf.reveal(worker_of(model).prune_state()[1]) < 0.6
    torch.testing.assert_close(nets[0].last.bias, nets[1].last.bias)
    assert len(weights_of(model)) == 2 * (len(nets[0].state_dict()) - 2)


def test_bfloat16_is_refused_by_the_name_of_the_weight(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="model must hold float32 numbers, got bfloat16 in weight of Linear"):
        build(devices, lambda: linear().to(torch.bfloat16), nn.CrossEntropyLoss)


@pytest.mark.parametrize("name", ["x", "y"])
def test_nan_in_the_data_is_named(devices: SimpleNamespace, name: str) -> None:
    x, y = table(18)[0], RNG.normal(size=(18, CLASSES)).astype(np.float32)
    {"x": x, "y": y}[name][2, 1] = np.nan
    model = build(devices, linear, nn.MSELoss, prune_end_rate=0.5, prune_percent=50)
    with pytest.raises(
        ValueError, match=rf"loss of alice must be a number, got NaN; NaN is in {name}\[2, 1\]"
    ):
        model.fit(spread(devices, (9, 9), x), spread(devices, (9, 9), y), batch_size=9, verbose=0)


def test_a_loss_that_runs_away_is_told_from_nan_in_the_data(devices: SimpleNamespace) -> None:
    x, y = table(60)
    model = build(devices, linear, nn.MSELoss, lr=1e30)
    with pytest.raises((ValueError, AggregationError), match=r"lower learning rate|too high a learning rate"):
        held = spread(devices, (30, 30), x), spread(devices, (30, 30), np.eye(CLASSES)[y])
        model.fit(*held, batch_size=5, epochs=3, aggregate_freq=100, verbose=0)


@pytest.mark.parametrize(("number", "message"), [(np.nan, "finite numbers"), (1e9, "does not fit")])
def test_a_weight_that_cannot_be_averaged_is_named(
    devices: SimpleNamespace, number: float, message: str
) -> None:
    class Spoilt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(FEATURES, 4), nn.Linear(4, CLASSES)
            self.head.bias.data[1] = number

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x))

    x, y = table(10)
    with pytest.raises(AggregationError, match=rf"^head\.bias of alice .*{message}"):
        build(devices, Spoilt, nn.CrossEntropyLoss).fit(
            spread(devices, (5, 5), x), spread(devices, (5, 5), y), batch_size=5, verbose=0
        )


def test_identifiers_that_pandas_made_floats_of_are_told_when_they_become_the_same(
    devices: SimpleNamespace, recwarn: pytest.WarningsRecorder
) -> None:
    y = table(10)[1]
    amounts = np.array([[2**24 + 1 + 4 * k, 0.5, k, 3e9 + k / 7] for k in range(10)])
    identifiers = np.array([[2**24 + k, 0, 0, 0] for k in range(10)], np.float64)
    for x, told in ((amounts, set()), (identifiers, {"alice", "bob"})):
        recwarn.clear()
        with suppress(AggregationError):  # no net can be trained on numbers of this size
            build(devices, linear, nn.CrossEntropyLoss).fit(
                spread(devices, (5, 5), x), spread(devices, (5, 5), y), batch_size=5, verbose=0
            )
        found = [str(w.message) for w in recwarn if "of which float32 makes" in str(w.message)]
        assert {party for party in ("alice", "bob") for text in found if f"x of {party}" in text} == told


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_the_aggregator_names_what_is_no_number(devices: SimpleNamespace, number: float) -> None:
    parties = [devices.alice, devices.bob]
    aggregator = SecurePruneAggregator(devices.carol, parties)
    data = [
        party(lambda k=k: np.array([1.0, number if k else 2.0], np.float32))()
        for k, party in enumerate(parties)
    ]
    what = "NaN" if np.isnan(number) else "infinity"
    with pytest.raises(AggregationError, match=rf"data\[0\] of bob must hold finite numbers, got {what}"):
        sf.reveal(aggregator.average(data))


def average_of(devices: SimpleNamespace, weights: list[int], values: list[float], **ring: Any) -> float:
    parties = [devices.alice, devices.bob, devices.carol][: len(weights)]
    # All have agreed that a party may stand alone.
    aggregator = SecurePruneAggregator(devices.davy, parties, min_contributors=1, min_share=1e-9, **ring)
    data = [party(lambda v=v: np.array([v]))() for party, v in zip(parties, values, strict=True)]
    return float(np.ravel(sf.reveal(aggregator.average(data, weights=weights)))[0])


@pytest.mark.parametrize("weights", [[1, 1, 10**6], [100, 100, 10**7], [1, 10**5], [100, 100, 10**8]])
def test_a_party_that_the_ring_would_round_away_is_told_of_64_bits(
    devices: SimpleNamespace, weights: list[int]
) -> None:
    values = [0.05] * (len(weights) - 1) + [0.0]
    with pytest.raises(AggregationError, match=r"weight of alice must be at least .* ring_bits=64"):
        average_of(devices, weights, values)
    ours = average_of(devices, weights, values, ring_bits=64)
    assert ours == pytest.approx(
        sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights), rel=1e-3
    )


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 100, 100], [0, 5, 5], [1, 1, 900]])
def test_weights_that_the_ring_holds_are_taken(devices: SimpleNamespace, weights: list[int]) -> None:
    ours = average_of(devices, weights, [1.0, 2.0, 3.0])
    assert ours == pytest.approx(np.average([1.0, 2.0, 3.0], weights=weights), abs=1e-5)


def test_equal_parties_may_choose_few_bits(devices: SimpleNamespace) -> None:
    assert average_of(devices, [1, 1, 1], [1.0, 2.0, 3.0], fxp_bits=6) == pytest.approx(2, abs=0.05)


def test_training_with_parties_of_very_unequal_size_is_told_of_64_bits(devices: SimpleNamespace) -> None:
    x, y = table(4)
    big = np.tile(x[:1], (12_000, 1))
    held = [
        spread(devices, (4, 12_000), np.concatenate(both)) for both in ((x, big), (y, np.zeros(12_000, int)))
    ]

    def fit(**options: Any) -> None:
        aggregator = SecurePruneAggregator(devices.carol, [devices.alice, devices.bob], **options)
        build(devices, linear, nn.CrossEntropyLoss, aggregator=aggregator).fit(
            *held, batch_sampling_rate=1.0, verbose=0
        )

    with pytest.raises(AggregationError, match="min_share"):
        fit()
    with pytest.raises(AggregationError, match="ring_bits=64"):
        fit(min_share=1e-4)
    fit(min_share=1e-4, ring_bits=64)
