"""Aggregation weights: what part of the total each party holds, and how many hold enough to hide others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .errors import AggregationError
from .ring import Ring
from .rules import Rules

LARGEST_WEIGHT = 2**53
"""Integers up to here are exact in float64, and 1000 of them add up in int64."""

_FEWEST_UNITS = 2**10
_ALL = 2.0**62  # a share of 1.0 as an element; what is rounded off of 1000 shares does not matter in float64


@dataclass(frozen=True, eq=False, repr=False)  # it holds what is the party's own
class AggregationWeights:
    """The parties' weights, seen from one of them.

    Attributes:
        weight: own weight, a number or an array that broadcasts to the data.
        total: sum of all weights.
        parties: how many there are.
        exact: whether all weights are integers, so that averages of integers lose nothing.
        counts: whether the own weight counts, boolean, a number or of the weight's shape.
        counting: how many parties count, at the element where they are fewest.
        name: equal for equal weights of all parties.
    """

    weight: Any
    total: Any
    parties: int
    exact: bool
    counts: bool | np.ndarray
    counting: int
    name: object

    @classmethod
    def make(cls, weights: Sequence[Any], position: int, parties: int, rules: Rules) -> AggregationWeights:
        """Weights that everybody knows.

        Args:
            weights: everybody's weight, numbers or arrays that broadcast to the data; empty for equal
                weights.
            position: which of them is the own one.
            parties: number of parties.
            rules: of the aggregation.

        Raises:
            AggregationError: a weight is negative, not a number or above 2^53, or they add up to 0.
        """
        if not weights:
            return cls(np.int64(1), np.int64(parties), parties, True, True, parties, "equal")
        known = [checked(weight, f"weights[{k}]") for k, weight in enumerate(weights)]
        total = sum(known[1:], start=known[0])
        if (total == 0).any():
            raise AggregationError("weights must add up to more than 0 at every element, got 0")
        exact = all(weight.dtype.kind in "iu" for weight in known)
        enough = [counts(weight, total, parties, rules) for weight in known]
        counting = sum(one.astype(int) for one in enough)
        name = tuple((weight.shape, weight.tobytes()) for weight in known)
        fewest = int(np.min(counting))
        return cls(known[position], total, parties, exact, enough[position], fewest, name)

    @property
    def uncounted(self) -> int:
        """How many parties do not count."""
        return self.parties - self.counting

    def as_element(self) -> tuple[np.ndarray, float]:
        """The own weight as an element of the ring modulo 2^64.

        Returns:
            The element, shape (1,), and what it is for the weights of all parties together.
        """
        if self.exact:
            return np.array([self.weight], "<u8"), float(self.total)
        return np.array([round(float(self.own) * _ALL)], "<u8"), _ALL

    @property
    def own(self) -> float | np.ndarray:
        """Own share of the total, in [0, 1]."""
        share = self.weight / self.total
        return share if np.ndim(share) else float(share)

    def counting_as(self, others: AggregationWeights) -> AggregationWeights:
        """These, where those count who count by other weights, so contributors are the same under both."""
        return replace(self, parties=others.parties, counts=others.counts, counting=others.counting)

    def equal(self, other: AggregationWeights) -> bool:
        """Whether everybody's weights are the same numbers."""
        return self.name == other.name

    def check_counting(self, rules: Rules, masked: bool, uncounted: int | None = None) -> None:
        """Refuses weights under which an element could stand behind too few parties.

        Args:
            rules: of the aggregation.
            masked: the average is over those parties that keep an element.
            uncounted: how many did not count when masks were agreed on; None without masks.

        Raises:
            AggregationError: too few count, or there are masks and a weight is no positive number.
        """
        if masked and (np.ndim(self.weight) or not self.weight > 0):
            raise AggregationError(
                f"weights must each be one positive number with prune_mask, got {self.weight!r}"
            )
        if self.counting < rules.min_contributors:
            raise AggregationError(
                f"weights must give at least min_contributors={rules.min_contributors} parties "
                f"{rules.min_share:g} of an equal share at every element, or an average is nearly one "
                f"party's numbers, got {self.counting}; SecurePruneAggregator(..., min_share=) says who "
                "counts"
            )
        if uncounted is not None and self.uncounted > uncounted:
            raise AggregationError(
                f"weights must let {self.parties - uncounted} parties count, as when the masks were agreed "
                f"on, got {self.counting}: give new mask objects"
            )

    def check_precision(self, ring: Ring, party: str) -> None:
        """Refuses an own share that is too small for the ring: the own numbers would be rounded away.

        A number is rounded to one ring unit after its party's share scales it, so 1.0 must be at least 2^10
        of them. Whose share is at least half of an equal one has the precision that was chosen.

        Args:
            ring: how floats are encoded.
            party: own name.

        Raises:
            AggregationError: the share, or of an array the smallest that is not 0, is too small.
        """
        smallest = min(_FEWEST_UNITS / ring.one, 0.5 / self.parties)
        share = np.asarray(self.own)
        found = np.min(share, initial=1.0, where=share > 0)
        if found < smallest:
            wider = "ring_bits=64" if ring.bits == 32 else f"fxp_bits={ring.fxp_bits + 8}"
            raise AggregationError(
                f"the weight of {party} must be at least {smallest:.2g} of all in a ring of {ring.bits} bits "
                f"with {ring.fxp_bits} behind the point, or its numbers are rounded away, got {found:.2g}; "
                f"SecurePruneAggregator(..., {wider}) has room for it"
            )


def checked(weight: Any, name: str) -> np.ndarray:
    """A weight in a type wide enough: three weights of 100 in int8 must not add up to 44.

    Args:
        weight: a number or an array.
        name: for messages.

    Returns:
        float64 or int64.

    Raises:
        AggregationError: it is negative, not a number or above 2^53.
    """
    weight = np.asarray(weight)
    # Written so that NaN, which compares false with everything, is refused as well.
    if weight.dtype.kind not in "fiu" or not ((weight >= 0) & (weight <= LARGEST_WEIGHT)).all():
        raise AggregationError(f"{name} must be numbers from 0 to 2^53, got {weight!r}")
    return weight.astype(np.float64 if weight.dtype.kind == "f" else np.int64)


def counts(weight: Any, total: Any, parties: int, rules: Rules) -> np.ndarray:
    """Where a party's weight is large enough to hide the others' numbers, boolean.

    Args:
        weight: of the party.
        total: of all parties, of a shape that broadcasts with the weight's.
        parties: how many there are.
        rules: say what is large enough.
    """
    return np.asarray(weight * parties >= rules.min_share * total)
