"""Which elements travel where parties can drop out between the agreement about masks and an average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..stages import Proposed
from ..support import Support


class AgreedSupport(Support):
    """A settled layout, and how many of which parties keep its elements.

    Nobody knows which masks have gone with a party that has dropped out, so it is taken to have kept every
    element: what is left of a count after that is what must be enough.

    Args:
        proposed: the own mask.
        counts: for each array how many of ``parties`` at least keep each element of the proposed layout; None
            where all do.
        parties: among whom.
        at_least: fewest contributors of an element that travels.

    Attributes:
        parties: see the argument.
    """

    def __init__(
        self,
        proposed: Proposed,
        counts: Sequence[np.ndarray | None],
        parties: tuple[str, ...],
        at_least: int,
    ) -> None:
        super().__init__(proposed.layout.narrowed(counts, len(parties), at_least), proposed.living)
        self.parties = parties
        self._proposed = proposed
        self._counts = counts
        self._at_least = at_least
        self._among: AgreedSupport | None = None

    def among(self, roster: tuple[str, ...]) -> AgreedSupport:
        """What is left of the support when only some of its parties are left.

        Args:
            roster: who is left.
        """
        if roster == self.parties:
            return self
        if self._among is None or self._among.parties != roster:
            dropped = len(self.parties) - len(roster)
            counts = [None if c is None else np.maximum(c, dropped) - np.uint8(dropped) for c in self._counts]
            self._among = AgreedSupport(self._proposed, counts, roster, self._at_least)
        return self._among

    def opens_without(self, dropped: int) -> bool:
        """Whether every element that travels has contributors enough if so many more parties drop out."""
        fewest = len(self.parties)
        for count in self._counts:
            if count is not None:
                fewest = min(fewest, np.min(count, where=count >= self._at_least, initial=fewest))
        return fewest - dropped >= self._at_least
