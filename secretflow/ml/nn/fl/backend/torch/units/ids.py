"""Numbers of units, of which some are tied and some must stay."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


class Ids:
    """Numbers of units; those that are tied have the same root (union-find)."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._reasons: dict[int, str] = {}

    def count(self) -> int:
        """How many numbers there are."""
        return len(self._parents)

    def fresh(self, count: int) -> np.ndarray:
        """New numbers, tied to no others."""
        first = len(self._parents)
        self._parents += range(first, first + count)
        return np.arange(first, first + count)

    def tie(self, some: np.ndarray, others: np.ndarray) -> None:
        """Makes pairs of units one unit each.

        Args:
            some: numbers.
            others: as many.
        """
        for a, b in zip(self.roots(some).tolist(), self.roots(others).tolist(), strict=True):
            a, b = self._root(a), self._root(b)
            if a != b:
                first, last = min(a, b), max(a, b)
                self._parents[last] = first
                reason = self._reasons.pop(last, None)
                if reason is not None:
                    self._reasons.setdefault(first, reason)

    def keep(self, ids: np.ndarray, reason: str) -> None:
        """Says that units must stay.

        Args:
            ids: their numbers.
            reason: why; completes "its units ...".
        """
        for root in set(self.roots(ids).tolist()):
            self._reasons.setdefault(root, reason)

    def roots(self, ids: np.ndarray) -> np.ndarray:
        """Of each number the smallest one that it is tied to."""
        return np.array([self._root(number) for number in ids.tolist()], np.int64)

    def reason(self, ids: np.ndarray) -> str | None:
        """Why some of the units must stay; None if all may go."""
        found = (self._reasons.get(root) for root in self.roots(ids).tolist())
        return next((reason for reason in found if reason is not None), None)

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number


class MoreDimensionsError(Exception):
    """A function is called as for tensors of more dimensions than have been assumed."""


@dataclass(frozen=True, eq=False)
class Channels:
    """The units of a tensor.

    Attributes:
        ids: their numbers, in order.
        after: how many dimensions come after that of the units: 2 after a Conv2d, 0 after a linear layer.
        flattened: each unit stands for as many neighbours ("each"), or the units repeat in turn ("turns");
            how often is told by whatever reads them. "" if neither.
        before: how many dimensions come before that of the units, 1 if those are rows alone; None if nobody
            knows.
        assumed: whether ``before`` is 1 for want of anything that says more.
        one_place: whether every dimension after that of the units has one place.
    """

    ids: np.ndarray
    after: int
    flattened: str = ""
    before: int | None = 1
    assumed: bool = False
    one_place: bool = False

    def is_place(self, dim: object) -> bool:
        """Whether a dimension comes after that of the units."""
        if not isinstance(dim, int):
            return False
        return -self.after <= dim < 0 or (self.before is not None and self.before < dim <= self.last)

    @property
    def last(self) -> int:
        """The last dimension; -1 if nobody knows."""
        return -1 if self.before is None else self.before + self.after

    def widened(self, width: int) -> np.ndarray | None:
        """The unit of each element of a dimension; None if they cannot have this width.

        Args:
            width: of the dimension.
        """
        times, rest = divmod(width, len(self.ids))
        if rest or not times or (times > 1 and not self.flattened):
            return None
        return np.repeat(self.ids, times) if self.flattened == "each" else np.tile(self.ids, times)

    def flat(self) -> Channels | None:
        """The units when all dimensions but the first are made one; None if they cannot be told then."""
        if self.after and self.before != 1:
            return None
        if self.flattened:
            return self
        return replace(self, after=0, flattened="each" if self.after else "turns", before=1)
