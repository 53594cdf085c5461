"""To which elements a party has contributed, so that no two sums differ by the numbers of few.

Two sums over different parties tell the difference of what is in them. A party remembers of each element
whether its numbers were in a sum. :mod:`.averaged` goes by the numbers themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from .errors import AggregationError, wrong_weight
from .layout import Layout
from .support import Support

_JOINS = (
    "prune_mask must leave out what was averaged without this party before, or with a weight of it that does "
    "not count: with it, the next average would tell its numbers; make a new aggregator for data that have "
    "nothing to do with the last"
)


class _Seen(IntEnum):
    """Of an element, whether the own number was in the sums before; lightly: and did not count there."""

    NEVER = 0
    WITH = 1
    WITHOUT = 2
    LIGHTLY = 3


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

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_recorded": None}  # no layout is the same object in another process

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        # What comes out of Ray's object store is read-only.
        self._seen = {
            of: [seen if seen is None else seen.copy() for seen in a] for of, a in self._seen.items()
        }

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
                leaves.append(~mask & ((seen == _Seen.WITH) | (seen == _Seen.LIGHTLY)))
        return contributes, leaves

    def check(self, layout: Layout, support: Support | None, counts: bool | np.ndarray) -> None:
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
        for seen, (index, now) in zip(self._of(layout), _added(layout, support, counts), strict=True):
            if seen is None:
                continue
            before = seen if index is None else seen[index]
            changes = before != now
            joins = changes & ((before == _Seen.WITHOUT) | ((before == _Seen.LIGHTLY) & (now == _Seen.WITH)))
            if joins.any():
                raise AggregationError(_JOINS)
            if (changes & (before != _Seen.NEVER)).any():
                raise AggregationError(
                    "weights must let this party count where it did before: the difference of the averages "
                    "would tell its numbers; with a smaller min_share it counts, and where all have agreed "
                    "to show it, fixed_contributors=False lets it go on"
                )

    def record(self, layout: Layout, support: Support | None, counts: bool | np.ndarray) -> None:
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
        for k, (index, now) in enumerate(_added(layout, support, counts)):
            array = seen[k]
            if array is None:
                array = seen[k] = np.zeros(int(np.prod(layout.shapes[k], dtype=np.int64)), np.uint8)
            array[slice(None) if index is None else index] = now

    def _of(self, layout: Layout) -> list[np.ndarray | None]:
        return self._seen.setdefault((layout.shapes, layout.dtypes), [None] * len(layout.shapes))


def _added(
    layout: Layout, support: Support | None, counts: bool | np.ndarray
) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
    """Of each array what travels, and how a party adds its number to it, as values of :class:`_Seen`."""
    for k, (shape, index) in enumerate(zip(layout.shapes, layout.support, strict=True)):
        where = slice(None) if index is None else index
        try:
            counted = np.broadcast_to(counts, shape).ravel()[where]
        except ValueError:
            raise wrong_weight(k, shape, np.shape(counts)) from None
        added = np.where(counted, np.uint8(_Seen.WITH), np.uint8(_Seen.LIGHTLY))
        mask = None if support is None or support.shared else support.contributes[k]
        yield index, added if mask is None else np.where(mask[where], added, np.uint8(_Seen.WITHOUT))
