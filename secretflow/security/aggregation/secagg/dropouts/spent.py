"""What a party remembers of numbers that it has released, so that it never opens them with other parties.

Two sums of the same numbers, one of them without a party, differ by exactly that party's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from ..errors import AggregationError
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

    def fingerprint(self, arrays: Sequence[np.ndarray]) -> bytes:
        """A short name of what arrays hold: equal for equal ones, for others only by chance.

        Args:
            arrays: of any shapes and dtypes.

        Returns:
            32 bytes.
        """
        state = sha256()
        for array in arrays:
            state.update(self._tags.of(array, repr((array.shape, array.dtype.str)).encode()))
        return state.digest()
