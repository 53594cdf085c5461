"""How numbers that a driver gave were averaged, so that no two averages of the same tell whose they are.

Two averages of the same numbers under different weights tell them, and so do two over different parties,
though :mod:`.contributions` does not know the elements again where they stand in other arrays.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from .errors import AggregationError
from .support import Support
from .tags import ArrayTags
from .weights import AggregationWeights

_Value = TypeVar("_Value")

_FEWEST_NUMBERS = 32  # a smaller array may well be the same by chance
_MOST_ARRAYS = 2**16
_CHANGED = b"changed"  # no tag is so short


class _Use(NamedTuple):
    """What became of data in a sum, as tags.

    Attributes:
        share: under which shares of the weight they were averaged.
        place: in which arrays they were given, by which :class:`~.contributions.Contributions` tells elements
            apart.
        added: which of them were in the sum.
    """

    share: bytes
    place: bytes
    added: bytes


class _Uses(NamedTuple):
    """What became of data in all sums so far, those of calls that have failed included.

    Attributes:
        share: see :class:`_Use`.
        added: by place which of them were in its sums; :data:`_CHANGED` if not the same in all.
    """

    share: bytes
    added: dict[bytes, bytes]

    def and_then(self, use: _Use) -> _Uses:
        """With one more sum."""
        same = self.added.get(use.place, use.added) == use.added
        return self._replace(added={**self.added, use.place: use.added if same else _CHANGED})


class Averaged:
    """How data were averaged, as far as a driver gave them: those of 2^16 arrays."""

    def __init__(self) -> None:
        self._tags = ArrayTags()
        self._uses: OrderedDict[bytes, _Uses] = OrderedDict()
        self._public: OrderedDict[bytes, bytes] = OrderedDict()

    def check(
        self,
        arrays: Sequence[np.ndarray],
        weights: AggregationWeights,
        party: str,
        support: Support | None = None,
    ) -> None:
        """Refuses data that were averaged otherwise.

        Args:
            arrays: own data.
            weights: everybody's.
            party: own name.
            support: what was agreed on; None if everything travels.

        Raises:
            AggregationError: an array of at least 32 numbers, not all 0, or all arrays together were averaged
                under other weights, or in arrays of other shapes or another order with more or fewer of its
                elements, and are no result either. So it is with an array that stands among these twice.
        """
        now: dict[bytes, _Uses] = {}
        for tag, use in self._private(arrays, weights, support):
            before = now.get(tag) or self._before(tag, use)
            if before.share != use.share:
                raise AggregationError(
                    f"data of {party} must be new under new weights, got some that were averaged under "
                    "others: the two averages would tell its numbers; leave out what does not change"
                )
            # In the same place :mod:`.contributions` looks after it.
            if any(place != use.place and added != use.added for place, added in before.added.items()):
                raise AggregationError(
                    f"data of {party} must be new under a new mask in arrays of other shapes or another "
                    "order, got some that were averaged under another mask: the two averages would tell its "
                    "numbers"
                )
            now[tag] = before.and_then(use)

    def record(
        self,
        arrays: Sequence[np.ndarray],
        weights: AggregationWeights,
        support: Support | None = None,
    ) -> None:
        """Takes down an upload.

        Args:
            arrays: own data.
            weights: everybody's.
            support: as for :meth:`check`.
        """
        for tag, use in self._private(arrays, weights, support):
            _remember(self._uses, tag, self._before(tag, use).and_then(use))

    def take_results(self, arrays: Sequence[np.ndarray]) -> None:
        """Takes down arrays that all parties have, so no average gives them away."""
        for array in arrays:
            _remember(self._public, self._tag(array), b"")

    def _private(
        self, arrays: Sequence[np.ndarray], weights: AggregationWeights, support: Support | None
    ) -> list[tuple[bytes, _Use]]:
        """Of each large array that not all have, and of all arrays together unless all have them, its use."""
        tags = [self._tag(array) for array in arrays]
        place = repr([(array.shape, array.dtype.str) for array in arrays]).encode()
        added = [self._added(k, array.size, support) for k, array in enumerate(arrays)]
        private = [k for k, tag in enumerate(tags) if tag not in self._public]
        if not private:
            return []
        shares = [self._share(weights.own, array.shape) for array in arrays]
        found = [
            (tags[k], _Use(shares[k], b"%d of %s" % (k, place), added[k]))
            for k in private
            if arrays[k].size >= _FEWEST_NUMBERS and arrays[k].any()
        ]
        return [*found, (self._joined(tags), _Use(self._joined(shares), place, self._joined(added)))]

    def _before(self, tag: bytes, use: _Use) -> _Uses:
        """What became of an array before; nothing that is against ``use`` if it is new."""
        return self._uses.get(tag) or _Uses(use.share, {})

    def _share(self, own: float | np.ndarray, shape: tuple[int, ...]) -> bytes:
        """Which share of the weight each element of an array is averaged under."""
        try:
            return self._tag(np.broadcast_to(own, shape) if np.ndim(own) else np.asarray(own))
        except ValueError:  # nothing is uploaded then
            return self._tag(np.asarray(own))

    def _added(self, k: int, size: int, support: Support | None) -> bytes:
        """Which elements of an array are in the sum."""
        index = None if support is None else support.layout.support[k]
        if support is None or index is None:
            return b"all"
        added, mask = np.zeros(size, bool), support.contributes[k]
        added[index] = True if mask is None or support.shared else mask[index]
        return b"all" if added.all() else self._tag(added)

    def _joined(self, tags: Sequence[bytes]) -> bytes:
        return self._tag(np.frombuffer(b"".join(tags), np.uint8))

    def _tag(self, array: np.ndarray) -> bytes:
        return self._tags.of(array, array.dtype.str.encode())


def _remember(known: OrderedDict[bytes, _Value], tag: bytes, value: _Value) -> None:
    known[tag] = value
    known.move_to_end(tag)
    if len(known) > _MOST_ARRAYS:
        known.popitem(last=False)
