"""What a party remembers of numbers that it has released, so that it never opens them with other parties.

Two sums of the same numbers, one of them without a party, differ by exactly that party's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import AggregationError
from ..fingerprint import Fingerprint
from ..tags import ArrayTags


class Spent:
    """Which numbers were opened, and with whom."""

    def __init__(self) -> None:
        self._tags = ArrayTags()
        self._with: dict[bytes, tuple[str, ...]] = {}

    def check(self, numbers: bytes, parties: tuple[str, ...]) -> None:
        """Refuses numbers that were agreed to be opened with other parties.

        Args:
            numbers: their fingerprint.
            parties: with whom they would be opened now.

        Raises:
            AggregationError: with others than before.
        """
        before = self._with.get(numbers, parties)
        if before != parties:
            raise AggregationError(
                f"data must be new after parties have dropped out, got what was given to be opened with "
                f"{', '.join(before)}: two results that differ in the parties would show one party's data"
            )

    def remember(self, numbers: bytes, parties: tuple[str, ...]) -> None:
        """Keeps with whom numbers are opened."""
        self.check(numbers, parties)
        self._with[numbers] = parties

    def fingerprint(self, arrays: Sequence[np.ndarray]) -> Fingerprint:
        """What names arrays here."""
        return Fingerprint(self._tags, arrays)
