"""What a party has contributed before, so that no two sums differ by the numbers of few.

Two sums over different parties tell the difference of what is in them, and so do two averages of the same
numbers under different weights. A party remembers of each element whether its numbers were in a sum, and of
the numbers that a driver gave it under which weights they were averaged.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import AggregationError
from .layout import Layout
from .support import Support
from .weights import AggregationWeights

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
            if mask is None:
                self._check(seen, None)
            if mask is None or seen is None:
                contributes.append(mask)
                leaves.append(None if mask is None else np.zeros(mask.size, bool))
            else:
                contributes.append(mask & (seen != _Seen.WITHOUT))
                leaves.append(~mask & (seen == _Seen.WITH))
        return contributes, leaves

    def check(self, layout: Layout, support: Support | None) -> None:
        """Refuses an upload without an agreement, where sums have gone on without this party.

        Args:
            layout: what travels.
            support: what was agreed on; None if everything travels.

        Raises:
            AggregationError: an element was in a sum that this party was not in.
        """
        if layout is self._recorded or (support is not None and not support.shared):
            return
        for seen, index in zip(self._of(layout), layout.support, strict=True):
            self._check(seen, index)

    def record(self, layout: Layout, support: Support | None) -> None:
        """Takes down an upload.

        Args:
            layout: what travels.
            support: as for :meth:`check`.
        """
        if not self._fixed or layout is self._recorded:
            return
        self._recorded = layout
        contributes = None if support is None or support.shared else support.contributes
        seen = self._of(layout)
        for k, (shape, index) in enumerate(zip(layout.shapes, layout.support, strict=True)):
            if seen[k] is None:
                seen[k] = np.zeros(int(np.prod(shape, dtype=np.int64)), np.uint8)
            mask = None if contributes is None else contributes[k]
            where = slice(None) if index is None else index
            array = seen[k]
            assert array is not None
            array[where] = _Seen.WITH if mask is None else np.where(mask[where], _Seen.WITH, _Seen.WITHOUT)

    def _of(self, layout: Layout) -> list[np.ndarray | None]:
        return self._seen.setdefault((layout.shapes, layout.dtypes), [None] * len(layout.shapes))

    @staticmethod
    def _check(seen: np.ndarray | None, index: np.ndarray | None) -> None:
        if seen is not None and (seen[slice(None) if index is None else index] == _Seen.WITHOUT).any():
            raise AggregationError(
                "prune_mask must leave out what was averaged without this party before: with it, the next "
                "average would tell its numbers; make a new aggregator for data that have nothing to do with "
                "the last"
            )


class Averaged:
    """Under which weights data were averaged, as far as a driver gave them: those of 2^16 arrays."""

    def __init__(self) -> None:
        # Under a key of its own: what is kept tells nothing of the data.
        self._key = AESGCM(secrets.token_bytes(32))
        self._shares: OrderedDict[bytes, bytes] = OrderedDict()
        self._public: set[bytes] = set()

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
            self._shares[tag] = share
            self._shares.move_to_end(tag)
        while len(self._shares) > _MOST_ARRAYS:
            self._shares.popitem(last=False)

    def take_result(self, arrays: Sequence[np.ndarray]) -> None:
        """Takes down what came out last: everybody has it, so no average gives it away."""
        self._public = set(self._tags(arrays))

    def _private_tags(self, arrays: Sequence[np.ndarray]) -> list[bytes]:
        return [tag for tag in self._tags(arrays) if tag not in self._public]

    def _tags(self, arrays: Sequence[np.ndarray]) -> list[bytes]:
        tags = [self._tag(array) for array in arrays]
        large = [tag for tag, array in zip(tags, arrays, strict=True) if array.size >= _FEWEST_NUMBERS]
        return [*large, self._tag(np.frombuffer(b"".join(tags), np.uint8))]

    def _tag(self, array: np.ndarray) -> bytes:
        # GCM's tag over data that are not encrypted: quick, and as good as a hash to whoever has not the key.
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return self._key.encrypt(_NONCE, array.dtype.str.encode(), data.data)[-16:]
