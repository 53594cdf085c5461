"""Encoding: from one party's arrays to padded ring elements that add up to the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import AggregationError, wrong_weight
from .fingerprint import Fingerprint
from .layout import Layout
from .pads import Pads
from .ring import Ring, encode_padded
from .weights import AggregationWeights

_INTEGER_BITS = 64


@dataclass(frozen=True, eq=False, repr=False)  # it holds what is the party's own
class Encoder:
    """How one party encodes and pads its numbers in one call.

    Attributes:
        party: own name, for messages.
        ring: how floats are encoded.
        layout: which numbers travel.
        shares: the parties' weights.
        average: whether the sum shall be the average.
        pads: the pads of the call. What is written draws from them, so everything is written once, in the
            order of the message.
        absent: by the number of an array the positions, among its elements that travel, at which the party
            adds 0.
        fingerprint: of the arrays; is given those that are read from their first element to the last.
    """

    party: str
    ring: Ring
    layout: Layout
    shares: AggregationWeights
    average: bool
    pads: Pads
    absent: Mapping[int, np.ndarray]
    fingerprint: Fingerprint | None = None

    def write_floats(
        self, out: np.ndarray, arrays: Sequence[np.ndarray], places: Sequence[tuple[int, slice]]
    ) -> None:
        """Writes floats that travel.

        Args:
            out: ring elements, one for each.
            arrays: own arrays.
            places: the numbers of those that are written, each with its place in ``out``.

        Raises:
            AggregationError: a number does not fit, or a party's share is too small for the ring.
        """
        own, parties = self.shares.own, self.shares.parties
        if self.average and out.size:
            self.shares.check_precision(self.ring, self.party)
        for k, place in places:
            values = arrays[k].ravel()
            scale, limit = self.ring.one, self.ring.capacity / parties
            if self.average and isinstance(own, float):
                # The shares add up to 1, so a number that fits before scaling fits in the sum.
                scale, limit = self.ring.one * own, self.ring.capacity * own
            elif self.average:
                values = _weighted(k, arrays[k], own)
            index, read = self.layout.support[k], None
            if self.fingerprint is not None and index is None and isinstance(own, float):
                read = self.fingerprint.reader(k)
            if k in self.absent:
                assert index is not None  # only what a mask has pruned is absent
                values = values.take(index)
                values[self.absent[k]] = 0
                index = None
            self._write(k, out[place], values, scale, limit, self.layout.dense_float_size, index, read)

    def write_integers(self, out: np.ndarray, arrays: Sequence[np.ndarray]) -> None:
        """Writes the integers, exactly unless a weight is a float.

        Args:
            out: ``layout.integer_size`` elements of the ring modulo 2^64.
            arrays: own arrays.

        Raises:
            AggregationError: a number does not fit.
        """
        signed = out.view("<i8")
        parties = self.shares.parties
        for k, place in self.layout.integer_places:
            values = arrays[k]
            if self.average and not self.shares.exact:
                limit = Ring(_INTEGER_BITS, self.ring.fxp_bits).capacity / parties
                weighted = _weighted(k, values, self.shares.own)
                self._write(k, out[place], weighted, self.ring.one, limit, out.size)
                continue
            factor = self.shares.weight if self.average else np.int64(1)
            peak = max(abs(int(values.max())), abs(int(values.min()))) if values.size else 0
            if peak * int(factor.max()) > (2 ** (_INTEGER_BITS - 1) - 1) // parties:
                raise AggregationError(
                    f"data[{k}] of {self.party} does not fit into {_INTEGER_BITS} bits: "
                    f"its largest magnitude is {peak}, times a weight of {int(factor.max())}; number "
                    "identifiers from 0, or keep the buffer of a model out of its state_dict with "
                    "register_buffer(..., persistent=False)"
                )
            signed[place] = _weighted(k, values.astype(np.int64), factor)
            self.pads.add_to(out[place])

    def _write(
        self,
        k: int,
        out: np.ndarray,
        values: np.ndarray,
        scale: float,
        limit: float,
        model_size: int,
        index: np.ndarray | None = None,
        read: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        try:
            encode_padded(out, values, scale, limit, self.pads, index, model_size, read)
        except AggregationError as error:
            travelling = values if index is None else values.take(index)
            if not np.isfinite(travelling).all():
                what = "NaN" if np.isnan(travelling).any() else "infinity"
                raise AggregationError(
                    f"data[{k}] of {self.party} must hold finite numbers, got {what}; weights of a model "
                    "become so by NaN in its data or too high a learning rate"
                ) from None
            raise AggregationError(
                f"data[{k}] of {self.party} does not fit into {8 * out.itemsize} bits with "
                f"{self.ring.fxp_bits} behind the point: {error}; fewer fxp_bits or ring_bits=64 "
                "widen the range"
            ) from None


def _weighted(k: int, array: np.ndarray, weight: Any) -> np.ndarray:
    """The flat product of the k-th array and a weight, which may broadcast to it but not beyond it."""
    try:
        product = array * weight
    except ValueError:
        product = None
    if product is None or product.size != array.size:
        raise wrong_weight(k, array.shape, np.shape(weight))
    return np.ravel(product)
