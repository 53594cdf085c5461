"""Which elements travel where parties can drop out between the agreement about masks and an average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..stages import Proposed
from ..support import Support


class AgreedSupport(Support):
    """A settled layout, and how many of which parties keep its elements.

    Nobody knows which mask and which weight have gone with a party that has dropped out. It is taken to have
    kept every element, and to have counted by its weight: what is left of a count must be enough.

    Args:
        proposed: the own mask.
        counts: for each array how many of ``parties`` at least keep each element of the proposed layout; None
            where all do.
        parties: among whom.
        min_contributors: fewest of an element that travels, of those that count.
        uncounted: see :class:`~..support.Support`.

    Attributes:
        parties: see the argument.
    """

    def __init__(
        self,
        proposed: Proposed,
        counts: Sequence[np.ndarray | None],
        parties: tuple[str, ...],
        min_contributors: int,
        uncounted: int,
    ) -> None:
        at_least = min_contributors + uncounted
        layout = proposed.layout.narrowed(counts, len(parties), at_least)
        super().__init__(layout, proposed.living, proposed.contributes, uncounted)
        self.parties = parties
        self._proposed = proposed
        self._counts = counts
        self._min_contributors = min_contributors
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
            counts = [
                None if c is None else np.maximum(c, dropped) - c.dtype.type(dropped) for c in self._counts
            ]
            self._among = AgreedSupport(
                self._proposed, counts, roster, self._min_contributors, self.uncounted
            )
        return self._among

    def opens_without(self, dropped: int) -> bool:
        """Whether every element that travels has contributors enough if so many more parties drop out."""
        fewest, at_least = len(self.parties), self._min_contributors + self.uncounted
        for count in self._counts:
            if count is not None:
                fewest = min(fewest, np.min(count, where=count >= at_least, initial=fewest))
        return fewest - dropped >= at_least
