"""What a party says of each element when masks are agreed on, and what the sum of all parties' says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .lanes import Lanes

_ELEMENT = np.dtype("<u4")
"""Of what travels. A server that adds something to a sum is found out but with a chance of at most 2^-32, see
:func:`~.checksum.checksum`; in elements of 64 bits it would not be."""


@dataclass(frozen=True)
class Ballot:
    """What a party says of each element when masks are agreed on, as numbers to be added up.

    Where parties are counted, one that contributes adds 1, and one that leaves, whose numbers are in an
    earlier sum and would not be in the next one, more than all others together. Where the contributors are
    known, and none can join, one that leaves adds 1, and nobody else says anything.

    Attributes:
        parties: how many say something, at most 65,534.
        counting: whether contributors are counted.
        leaving: whether parties say that they leave.
    """

    parties: int
    counting: bool
    leaving: bool

    def nbytes(self, size: int) -> int:
        """Bytes of what a party says of so many elements."""
        return self._lanes.size_of(size) * _ELEMENT.itemsize

    def cast(
        self, contributes: Sequence[np.ndarray | None], leaves: Sequence[np.ndarray | None]
    ) -> np.ndarray:
        """What one party says, of all arrays with a mask in one row.

        Args:
            contributes: for each array where it would add its numbers, boolean; None without a mask.
            leaves: likewise where it has added some before and would no more.

        Returns:
            Ring elements.
        """
        says = [np.empty(0, np.int32)]
        for added, left in zip(contributes, leaves, strict=True):
            if added is not None and left is not None:
                says.append(added * np.int32(self.counting) + left * np.int32(self._leaver))
        return self._lanes.join(np.concatenate(says)).astype(_ELEMENT)

    def tally(self, total: np.ndarray, size: int) -> np.ndarray:
        """How many contribute to each element, or stay there if they are not counted.

        Args:
            total: the sum of all parties' ballots.
            size: how many elements they are about.

        Returns:
            uint8, or of more than 255 parties uint16; 0 where somebody leaves.
        """
        digits, counts = self._lanes.split(total.astype("<u8"), size), np.min_scalar_type(self.parties)
        if not self.counting:
            return np.where(digits, 0, self.parties).astype(counts)
        return np.where(digits <= self.parties, digits, 0).astype(counts)

    @property
    def _leaver(self) -> int:
        return (self.parties + 1 if self.counting else 1) * self.leaving

    @cached_property
    def _lanes(self) -> Lanes:
        return Lanes.counting(self.parties * max(self._leaver, 1), 8 * _ELEMENT.itemsize)
