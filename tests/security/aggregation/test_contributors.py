"""No opened element stands behind too few parties, and its parties stay the same from call to call."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secretflow as sf
from secretflow.security.aggregation.secagg.errors import AggregationError

from .averages import property_test

MIN_SHARE = 0.01


@dataclass
class Request:
    """What a driver asks for, with what each party brings."""

    path: str
    data: list[np.ndarray]
    masks: list[np.ndarray] | None
    weights: list[Any] | None
    at_parties: bool

    def ask(self, consortium: Any, aggregator: Any) -> np.ndarray:
        """The result; a party's own values are taken out of it."""
        held = consortium.held([[x] for x in self.data])
        masks = None if self.masks is None else consortium.held([[mask] for mask in self.masks])
        weights = consortium.held(self.weights) if self.at_parties and self.weights else self.weights
        if self.path == "sum":
            return sf.reveal(aggregator.sum(held, axis=0))[0] / len(self.data)
        if self.path == "at the server":
            return sf.reveal(aggregator.average(held, 0, weights, masks))[0]
        results = sf.reveal(
            aggregator.average_at_parties(held, weights, masks, same_mask=self.path == "one mask")
        )
        opened = np.stack([result[0] for result in results.values()])
        own = np.stack(self.data) == opened
        return np.where(own, 0, opened)[np.argmin(own, axis=0), np.arange(opened.shape[1])]

    def behind(self, element: int, value: float) -> frozenset[int]:
        """The parties whose numbers give an average, those left out whose weight is next to nothing."""
        shares = self.shares(element)
        numbers = np.array([x[element] for x in self.data])
        found = []
        for size in range(1, shares.size + 1):
            for some in map(list, itertools.combinations(range(shares.size), size)):
                if shares[some].sum():
                    error = abs(np.average(numbers[some], weights=shares[some]) - value)
                    found.append((error, some))
        error, best = min(found)
        assert error < 1e-4, "no parties give this number"
        return frozenset(k for k in best if shares[k] >= MIN_SHARE / shares.size)

    def shares(self, element: int) -> np.ndarray:
        if self.weights is None or self.path == "sum":
            return np.full(len(self.data), 1 / len(self.data))
        weights = np.array([np.broadcast_to(w, self.data[0].shape)[element] for w in self.weights], float)
        return weights / weights.sum()


@st.composite
def requests(draw: st.DrawFn, parties: int, elements: int) -> Request:
    path = draw(st.sampled_from(["at the server", "at the parties", "one mask", "sum"]))
    rng = np.random.default_rng(draw(st.integers(0, 3)))  # some requests bring the same numbers
    data = list(rng.uniform(1, 100, (parties, elements)) * rng.choice([-1, 1], (parties, elements)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.5, 0.8, 0.95, 1.0]))
    masks = list((rng.random((parties, elements)) < density).astype("u1"))
    if path == "one mask":
        masks = [masks[0]] * parties
    kind = draw(st.sampled_from(["none", "alike", "some", "tiny", "zero", "arrays", "apart"]))
    weights: list[Any] | None = {
        "none": None,
        "alike": [3] * parties,
        "some": list(rng.integers(1, 20, parties)),
        "tiny": [1e-9] * (parties - 1) + [1.0],
        "zero": [0] * (parties - 1) + [1],
        "arrays": list(rng.integers(0, 5, (parties, elements))),
        "apart": list(np.eye(elements, dtype=int)[np.arange(parties) % elements] + 1e-12),
    }[kind]
    masked = path == "one mask" or (path != "sum" and draw(st.booleans()))
    if path == "sum":
        weights = None
    return Request(path, data, masks if masked else None, weights, draw(st.booleans()))


@dataclass
class History:
    """Who has stood behind each element."""

    behind: dict[int, frozenset[int]] = field(default_factory=dict)
    opened: int = 0
    refused: int = 0


@settings(property_test, max_examples=120)
@given(data=st.data(), parties=st.integers(2, 5), ring_bits=st.sampled_from([32, 64]))
def test_no_opened_element_ever_stands_behind_fewer_than_min_contributors_who_count_on_any_path(
    consortium: Any, data: st.DataObject, parties: int, ring_bits: int
) -> None:
    """And whoever stands behind an element does so in each of its sums."""
    elements, history = 6, History()
    asked_for = data.draw(st.none() | st.integers(1, parties))
    at_least = asked_for or min(3, parties)
    aggregator = consortium.aggregator(parties, ring_bits=ring_bits, min_contributors=asked_for)
    for request in data.draw(st.lists(requests(parties, elements), min_size=1, max_size=5)):
        try:
            result = request.ask(consortium, aggregator)
        except AggregationError:
            history.refused += 1
            continue
        for element in np.flatnonzero(result):
            behind = request.behind(int(element), result[element])
            assert len(behind) >= at_least
            assert behind <= history.behind.setdefault(int(element), behind)
            history.opened += 1


@pytest.mark.parametrize("weights", [[0, 0, 1], [1e-9, 1e-9, 1], [0.0, 1.0, 1.0]])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("at_parties", [False, True])
def test_weights_under_which_one_party_stands_alone_are_refused(
    consortium: Any, weights: list[float], masked: bool, at_parties: bool
) -> None:
    aggregator = consortium.aggregator(3, ring_bits=64)
    data = consortium.held([np.arange(4.0) + k for k in range(3)])
    masks = consortium.held([[np.ones(4)]] * 3) if masked else None
    given = consortium.held(weights) if at_parties else weights
    with pytest.raises(AggregationError, match="weights must"):
        sf.reveal(aggregator.average(data, 0, given, masks))


@pytest.mark.parametrize("at_parties", [False, True])
def test_weights_for_each_element_that_let_one_party_stand_alone_somewhere_are_refused(
    consortium: Any, at_parties: bool
) -> None:
    aggregator, data = consortium.aggregator(3, ring_bits=64), consortium.held([np.ones(3)] * 3)
    apart = list(np.eye(3) + 1e-6)
    with pytest.raises(AggregationError, match="min_contributors=3 parties"):
        sf.reveal(aggregator.average(data, 0, consortium.held(apart) if at_parties else apart))
    weighed = [np.array([1, 2, 3]), np.array([2, 2, 2]), np.array([3, 1, 1])]
    given = consortium.held(weighed) if at_parties else weighed
    np.testing.assert_allclose(sf.reveal(aggregator.average(data, 0, given)), np.ones(3), atol=1e-6)


def test_of_three_parties_all_must_keep_a_weight_for_it_to_travel_by_default(consortium: Any) -> None:
    masks = consortium.held([[np.array([1, 1, 1])], [np.array([1, 1, 0])], [np.array([1, 0, 0])]])
    data = [np.array([3.0, 4.0, 5.0]), np.array([6.0, 7.0, 8.0]), np.array([9.0, 1.0, 2.0])]
    results = sf.reveal(
        consortium.aggregator(3).average_at_parties(consortium.held([[x] for x in data]), prune_mask=masks)
    )
    # What too few keep stays a party's own, and what it has pruned stays zero.
    assert [result[0].tolist() for result in results.values()] == [[6, 4, 5], [6, 7, 0], [6, 0, 0]]


def test_a_party_of_little_weight_is_not_taken_for_a_contributor_of_a_masked_element(consortium: Any) -> None:
    """Of four parties one has next to no weight; an element needs three others, whoever it is."""
    masks = [[1, 1, 1, 0], [1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]]
    data = consortium.held([[np.full(4, k + 1.0)] for k in range(4)])
    held = consortium.held([[np.array(mask)] for mask in masks])
    aggregator = consortium.aggregator(4, ring_bits=64)
    result = sf.reveal(aggregator.average(data, 0, [1, 1, 1, 1e-3], held))[0]
    np.testing.assert_allclose(
        result, [np.average([1, 2, 3, 4], weights=[1, 1, 1, 1e-3]), 0, 0, 0], atol=1e-6
    )
    with pytest.raises(AggregationError, match="weights must let 4 parties count"):
        fresh = consortium.aggregator(4, ring_bits=64)
        fresh.average(data, 0, None, held)
        other = consortium.held([[np.full(4, k + 2.0)] for k in range(4)])
        sf.reveal(fresh.average(other, 0, [1, 1, 1, 1e-3], held))
