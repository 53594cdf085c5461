"""Whatever is asked of one aggregator, no two sums of the same data are of different parties or weights."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, given, settings

import secretflow as sf
from secretflow.device import PYUObject, proxy
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.participant import Participant

from .conftest import Consortium

SIZE = 48
ARRANGED: dict[str, Any] = {
    "x": lambda x, _: x,
    "[x]": lambda x, _: [x],
    "[x, y]": lambda x, y: [x, y],
    "[y, x]": lambda x, y: [y, x],
    "reshaped": lambda x, _: [x.reshape(8, 6)],
    "[x, x]": lambda x, _: [x, x],
}
X, Y = (
    [factor * 3.0**k + np.arange(SIZE) / rate for k in range(5)] for factor, rate in ((1, 997), (1.5, 601))
)
"""Of each party: which of them are in an average of an element, and with what weights, its value tells."""


def random_mask(rng: np.random.Generator) -> np.ndarray:
    return rng.random(SIZE) < rng.choice([0.5, 0.9, 1.0, 1.0])


def random_weights(rng: np.random.Generator, parties: int) -> list[float] | None:
    small = [1000] * (parties - 1) + [int(rng.integers(1, 12))]
    choices: list[Any] = [None, [1.0] * parties, list(range(1, parties + 1)), small]
    return choices[rng.integers(len(choices))]


def parts_of(value: float, own: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The parties' parts of the average that a value is."""
    for count in range(1, len(own) + 1):
        for some in map(list, itertools.combinations(range(len(own)), count)):
            if abs(np.average(own[some], weights=weights[some]) - value) < 1e-8 * abs(value):
                parts = np.zeros(len(own))
                parts[some] = weights[some] / weights[some].sum()
                return parts
    raise AssertionError(f"{value} is no average")


class Calls:
    """Random calls of one aggregator about the same data.

    Attributes:
        told: by array and element the parties' parts of all averages that were opened of it.
    """

    def __init__(self, consortium: Consortium, rng: np.random.Generator) -> None:
        self.parties = int(rng.integers(3, 6))
        self.consortium, self.rng = consortium, rng
        self.aggregator = consortium.aggregator(self.parties, ring_bits=64)
        self.usual = random_weights(rng, self.parties)
        self.told: dict[tuple[str, int], list[np.ndarray]] = {}

    def call(self) -> None:
        """Asks for something."""
        rng, held = self.rng, self.consortium.held
        if rng.random() < 0.2:
            hosts = {
                party: proxy(PYUObject)(Participant)(device=party) for party in self.aggregator.participants
            }
            self.aggregator.host_at(hosts)
        how = str(rng.choice(list(ARRANGED)))
        weights = self.usual if rng.random() < 0.8 else random_weights(rng, self.parties)
        data = [ARRANGED[how](x, y) for x, y in zip(X, Y, strict=True)][: self.parties]
        masks = None
        if rng.random() < 0.8:
            given = [ARRANGED[how](random_mask(rng), random_mask(rng)) for _ in data]
            masks = held([mask if isinstance(mask, list) else [mask] for mask in given])
        own = held(weights) if weights and rng.random() < 0.5 else weights
        try:
            opened = sf.reveal(self.aggregator.average(held(data), 0, own, masks))
        except AggregationError:  # refused
            return
        arrays = opened if isinstance(opened, list) else [opened]
        known = np.ones(self.parties) if weights is None else np.array(weights, float)
        for name, array in zip([letter for letter in how if letter in "xy"] or "x", arrays, strict=True):
            numbers = np.array((X if name == "x" else Y)[: self.parties])
            for element in np.flatnonzero(array):
                parts = parts_of(array.flat[element], numbers[:, element], known)
                self.told.setdefault((name, int(element)), []).append(parts)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_no_two_sums_of_the_same_data_in_random_calls_are_of_other_parties_or_weights(
    consortium: Consortium, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    calls = Calls(consortium, rng)
    for _ in range(int(rng.integers(3, 8))):
        calls.call()
    for parts in calls.told.values():
        np.testing.assert_allclose(parts, parts[:1] * len(parts), atol=1e-9)
