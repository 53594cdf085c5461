"""What a party has contributed before, so that no two sums differ by the numbers of few.

Two sums over different parties tell the difference of what is in them, and so do two averages of the same
numbers under different weights. A party remembers of each element whether its numbers were in a sum, and of
the numbers that a driver gave it under which weights they were averaged.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import AggregationError
from .layout import Layout
from .support import Support
from .weights import AggregationWeights

_JOINS = (
    "prune_mask must leave out what was averaged without this party before, or with a weight of it that does "
    "not count: with it, the next average would tell its numbers; make a new aggregator for data that have "
    "nothing to do with the last"
)
_FEWEST_NUMBERS = 32  # a smaller array may well be the same by chance
_MOST_ARRAYS = 2**16
_NONCE = bytes(12)


class _Seen(IntEnum):
    """Of an element, the sums before."""

    NEVER = 0
    WITH = 1
    WITHOUT = 2


class Contributions:
    """To which elements of arrays of given shapes a party has contributed.

    Elements are told apart by their place in the arrays and by the arrays' shapes and types.

    Args:
        fixed: whether contributors stay the same; if not, nothing is remembered.
    """

    def __init__(self, fixed: bool) -> None:
        self._fixed = fixed
        self._recorded: Layout | None = None
        self._seen: dict[tuple[object, object], list[np.ndarray | None]] = {}

    def split(
        self, layout: Layout, living: Sequence[np.ndarray | None]
    ) -> tuple[list[np.ndarray | None], list[np.ndarray | None]]:
        """Where a party may contribute, and where it leaves.

        Args:
            layout: of the arrays.
            living: the own mask, for each array a flat one, or None where everything lives.

        Returns:
            For each array two boolean arrays, or None where everything lives. A party does not join in
            elements whose sums have gone on without it.

        Raises:
            AggregationError: everything of an array lives of which a sum has gone on without this party.
        """
        contributes: list[np.ndarray | None] = []
        leaves: list[np.ndarray | None] = []
        for mask, seen in zip(living, self._of(layout), strict=True):
            if mask is None and seen is not None and (seen == _Seen.WITHOUT).any():
                raise AggregationError(_JOINS)
            if mask is None or seen is None:
                contributes.append(mask)
                leaves.append(None if mask is None else np.zeros(mask.size, bool))
            else:
                contributes.append(mask & (seen != _Seen.WITHOUT))
                leaves.append(~mask & (seen == _Seen.WITH))
        return contributes, leaves

    def check(self, layout: Layout, support: Support | None, counts: Any) -> None:
        """Refuses an upload in which this party joins a sum that has gone on without it, or leaves one.

        Masks that were agreed on have neither; weights may have.

        Args:
            layout: what travels.
            support: what was agreed on; None if everything travels.
            counts: where the own weight counts, boolean; it broadcasts to the arrays.

        Raises:
            AggregationError: it does.
        """
        if not self._fixed or (layout is self._recorded and np.all(counts)):
            return
        for seen, (index, adds) in zip(self._of(layout), _added(layout, support, counts), strict=True):
            if seen is None:
                continue
            before = seen if index is None else seen[index]
            if ((before == _Seen.WITHOUT) & adds).any():
                raise AggregationError(_JOINS)
            if ((before == _Seen.WITH) & ~adds).any():
                raise AggregationError(
                    "weights must let this party count where it did before: the difference of the averages "
                    "would tell its numbers"
                )

    def record(self, layout: Layout, support: Support | None, counts: Any) -> None:
        """Takes down an upload.

        Args:
            layout: what travels.
            support: as for :meth:`check`.
            counts: as for :meth:`check`.
        """
        if not self._fixed or (layout is self._recorded and np.all(counts)):
            return
        self._recorded = layout if np.all(counts) else None
        seen = self._of(layout)
        for k, (index, adds) in enumerate(_added(layout, support, counts)):
            array = seen[k]
            if array is None:
                array = seen[k] = np.zeros(int(np.prod(layout.shapes[k], dtype=np.int64)), np.uint8)
            array[slice(None) if index is None else index] = np.where(adds, _Seen.WITH, _Seen.WITHOUT)

    def _of(self, layout: Layout) -> list[np.ndarray | None]:
        return self._seen.setdefault((layout.shapes, layout.dtypes), [None] * len(layout.shapes))


def _added(
    layout: Layout, support: Support | None, counts: Any
) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
    """Of each array what travels, and whether a party adds its number to it with a weight that counts."""
    for k, (shape, index) in enumerate(zip(layout.shapes, layout.support, strict=True)):
        where = slice(None) if index is None else index
        try:
            adds = np.broadcast_to(counts, shape).ravel()[where]
        except ValueError:
            raise AggregationError(
                f"weights: a weight of shape {np.shape(counts)} does not fit data[{k}] of shape {shape}"
            ) from None
        mask = None if support is None or support.shared else support.contributes[k]
        yield index, adds if mask is None else adds & mask[where]


class Averaged:
    """Under which weights data were averaged, as far as a driver gave them: those of 2^16 arrays."""

    def __init__(self) -> None:
        # Under a key of its own: what is kept tells nothing of the data.
        self._key = AESGCM(secrets.token_bytes(32))
        self._shares: OrderedDict[bytes, bytes] = OrderedDict()
        self._public: OrderedDict[bytes, bytes] = OrderedDict()

    def check(self, arrays: Sequence[np.ndarray], weights: AggregationWeights, party: str) -> None:
        """Refuses data that were averaged under another share of the weight.

        Args:
            arrays: own data.
            weights: everybody's.
            party: own name.

        Raises:
            AggregationError: an array of at least 32 numbers, or all arrays together, was averaged under
                other weights, and is no result either.
        """
        share = self._tag(np.asarray(weights.own))
        if any(self._shares.get(tag, share) != share for tag in self._private_tags(arrays)):
            raise AggregationError(
                f"data of {party} must be new under new weights, got some that were averaged under others: "
                "the two averages would tell its numbers; leave out what does not change"
            )

    def record(self, arrays: Sequence[np.ndarray], weights: AggregationWeights) -> None:
        """Takes down an upload.

        Args:
            arrays: own data.
            weights: everybody's.
        """
        share = self._tag(np.asarray(weights.own))
        for tag in self._private_tags(arrays):
            _remember(self._shares, tag, share)

    def take_results(self, arrays: Sequence[np.ndarray]) -> None:
        """Takes down arrays that all parties have, so no average gives them away."""
        for array in arrays:
            _remember(self._public, self._tag(array), b"")

    def _private_tags(self, arrays: Sequence[np.ndarray]) -> list[bytes]:
        """Of each large array that not all have, and of all arrays together unless all have them."""
        tags = [self._tag(array) for array in arrays]
        private = [(tag, array) for tag, array in zip(tags, arrays, strict=True) if tag not in self._public]
        if not private:
            return []
        large = [tag for tag, array in private if array.size >= _FEWEST_NUMBERS]
        return [*large, self._tag(np.frombuffer(b"".join(tags), np.uint8))]

    def _tag(self, array: np.ndarray) -> bytes:
        # GCM's tag over data that are not encrypted: quick, and as good as a hash to whoever has not the key.
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return self._key.encrypt(_NONCE, array.dtype.str.encode(), data.data)[-16:]


def _remember(known: OrderedDict[bytes, bytes], tag: bytes, value: bytes) -> None:
    known[tag] = value
    known.move_to_end(tag)
    if len(known) > _MOST_ARRAYS:
        known.popitem(last=False)
