"""Aggregation weights: what part of the total each party holds. All parties know all weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import AggregationError
from .ring import Ring

_LARGEST = 2**53  # integers up to here are exact in float64, and 255 of them add up in int64

_FEWEST_UNITS = 2**10


@dataclass(frozen=True, eq=False)
class AggregationWeights:
    """The parties' weights, seen from one of them.

    Attributes:
        weights: everybody's weight, each a number or an array.
        weight: own weight.
        total: sum of all weights.
        exact: whether all weights are integers, so that averages of integers lose nothing.
    """

    weights: tuple[Any, ...]
    weight: Any
    total: Any
    exact: bool

    @classmethod
    def make(cls, weights: Sequence[Any], position: int, parties: int, masked: bool) -> AggregationWeights:
        """Validates the weights.

        Args:
            weights: everybody's weight, numbers or arrays that broadcast to the data; empty for equal
                weights.
            position: which of them is the own one.
            parties: number of parties.
            masked: the average is over those parties that keep an element; then a weight is a positive
                number, since a party that adds nothing would expose the others.

        Raises:
            AggregationError: a weight is negative, not a number or above 2^53, or they add up to 0.
        """
        known = [np.asarray(weight) for weight in weights] or [np.asarray(1)] * parties
        for k, weight in enumerate(known):
            # Written so that NaN, which compares false with everything, is refused as well.
            if weight.dtype.kind not in "fiu" or not ((weight >= 0) & (weight <= _LARGEST)).all():
                raise AggregationError(f"weights[{k}] must be numbers from 0 to 2^53, got {weight!r}")
            if masked and (weight.ndim or weight == 0):
                raise AggregationError(
                    f"weights[{k}] must be one positive number with prune_mask, got {weight!r}"
                )
        # In wide types: three weights of 100 in int8 must not add up to 44.
        known = [weight.astype(np.float64 if weight.dtype.kind == "f" else np.int64) for weight in known]
        total = sum(known[1:], start=known[0])
        if (total == 0).any():
            raise AggregationError("weights add up to 0: at least one must be positive")
        exact = all(weight.dtype.kind in "iu" for weight in known)
        return cls(tuple(known), known[position], total, exact)

    @property
    def own(self) -> float | np.ndarray:
        """Own share of the total, in [0, 1]."""
        share = self.weight / self.total
        return share if np.ndim(share) else float(share)

    def check_precision(self, ring: Ring) -> None:
        """Refuses shares that are too small for the ring: their parties' numbers would be rounded away.

        A number is rounded to one ring unit after its party's share scales it, so 1.0 must be at least 2^10
        of them. Whose share is at least half of an equal one has the precision that was chosen.

        Args:
            ring: how floats are encoded.

        Raises:
            AggregationError: a share that is not 0, or of an array the largest, is too small.
        """
        smallest = min(_FEWEST_UNITS / ring.one, 0.5 / len(self.weights))
        for k, weight in enumerate(self.weights):
            share = np.max(weight / self.total, initial=0.0)
            if 0 < share < smallest:
                wider = "ring_bits=64" if ring.bits == 32 else f"fxp_bits={ring.fxp_bits + 8}"
                raise AggregationError(
                    f"weights[{k}] must be at least {smallest:.2g} of all in a ring of {ring.bits} bits with "
                    f"{ring.fxp_bits} behind the point, or its party's numbers are rounded away, got "
                    f"{share:.2g}; SecurePruneAggregator(..., {wider}) has room for it"
                )

    def equal(self, other: AggregationWeights) -> bool:
        """Whether everybody's weights are the same numbers."""
        return all(np.array_equal(a, b) for a, b in zip(self.weights, other.weights, strict=True))
