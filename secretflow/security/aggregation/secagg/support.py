"""What a party keeps from one agreement about masks to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .layout import Layout
from .weights import AggregationWeights


class Support:
    """A settled layout seen from one party.

    Args:
        layout: see the attributes, as well as ``contributes`` and ``uncounted``.
        living: the own mask, for each array a flat one, or None where everything lives.

    Attributes:
        layout: which elements travel.
        contributes: for each array where the party adds its numbers, boolean; None where everywhere.
        uncounted: how many parties at most may not count for what travels to stand behind enough.
        shared: whether all parties have the same mask.
        absent: by the number of an array the positions, among its elements that travel, to which the party
            adds nothing; ascending, and nothing for an array without any.
        has_partial: to which elements of ``layout.partial`` the party adds its numbers, boolean.
        counts: for each array how many parties contribute to each element that travels; None where all do.
    """

    def __init__(
        self,
        layout: Layout,
        living: Sequence[np.ndarray | None],
        contributes: Sequence[np.ndarray | None] | None = None,
        uncounted: int = 0,
        *,
        shared: bool = False,
    ) -> None:
        self.layout = layout
        self.contributes = living if contributes is None else contributes
        self.uncounted = uncounted
        self.shared = shared
        self._living = living
        self.counts: list[np.ndarray | None] = [None] * len(living)
        self.absent: dict[int, np.ndarray] = {}
        present = np.ones(layout.float_size, bool)
        self._private: list[tuple[int, np.ndarray]] = []
        self._pruned: list[tuple[int, np.ndarray]] = []
        for k, place in layout.float_places:
            mask, added, index = living[k], self.contributes[k], layout.support[k]
            if mask is None or added is None or index is None:
                continue
            others = np.flatnonzero(~added[index])
            if others.size:
                self.absent[k] = others
                present[place.start + others] = False
                self._pruned.append((k, index[np.flatnonzero(~mask[index])]))
            hidden = mask.copy()
            hidden[index] = False
            if hidden.any():
                self._private.append((k, np.flatnonzero(hidden)))
        self.has_partial = present[layout.partial]
        self._known: tuple[AggregationWeights, np.ndarray] | None = None

    def encloses(self, living: Sequence[np.ndarray | None]) -> bool:
        """Whether an own mask, one flat one or None for each array, has no element that this one has not."""
        return all(
            old is None or (new is not None and not (new & ~old).any())
            for new, old in zip(living, self._living, strict=True)
        )

    def denominators_for(self, shares: AggregationWeights) -> np.ndarray | None:
        """The denominators of the partial elements, if they came with an earlier call of equal weights."""
        if self._known is not None and self._known[0].equal(shares):
            return self._known[1]
        return None

    def remember_denominators(self, shares: AggregationWeights, denominators: np.ndarray) -> None:
        """Keeps denominators, so that calls of equal weights need not carry them."""
        self._known = shares, denominators

    def inherit_denominators(self, last: Support, stay: Sequence[np.ndarray | None]) -> None:
        """Takes denominators over, which are the same where the contributors are.

        Args:
            last: the support before, in which there were more elements.
            stay: for each array which of its elements are in this one, boolean; None if all are.
        """
        if last._known is None:
            return
        weights, denominators = last._known
        here = np.ones(last.layout.float_size, bool)
        for k, place in last.layout.float_places:
            found = stay[k]
            if found is not None:
                here[place] = found
        self._known = weights, denominators[here[last.layout.partial]]

    def keep_pruned(self, opened: Sequence[np.ndarray]) -> None:
        """Sets elements to zero that travel, but that the own mask has pruned.

        Args:
            opened: arrays, changed in place.
        """
        for k, index in self._pruned:
            opened[k].flat[index] = 0

    def private_arrays(self) -> set[int]:
        """The numbers of the arrays of which this party keeps elements that do not travel."""
        return {k for k, _ in self._private}

    def keep_private(self, opened: Sequence[np.ndarray], own: Sequence[np.ndarray]) -> None:
        """Writes the own values of elements that this party keeps, but too few others do to travel.

        Args:
            opened: arrays, changed in place.
            own: the party's arrays, of the same shapes.
        """
        for k, index in self._private:
            opened[k].reshape(-1)[index] = own[k].ravel()[index]
