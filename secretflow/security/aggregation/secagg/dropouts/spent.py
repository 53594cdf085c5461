"""What a party remembers of numbers that it has released, so that it never opens them with other parties.

Two sums of the same numbers, one of them without a party, differ by exactly that party's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from ..errors import AggregationError

_WORDS = 1024  # of 8 bytes, to which an array is folded before it is hashed


class Spent:
    """Which numbers were opened, and with whom."""

    def __init__(self) -> None:
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


def fingerprint(arrays: Sequence[np.ndarray]) -> bytes:
    """A short name of what arrays hold: equal for equal ones, for others only by chance.

    It guards against mistakes, not against somebody who looks for two arrays of one name: large arrays are
    folded to sums of 64-bit words first, ten times as quick as hashing them.

    Args:
        arrays: of any shapes and dtypes.

    Returns:
        16 bytes.
    """
    state = sha256()
    for array in arrays:
        state.update(repr((array.shape, array.dtype.str)).encode())
        held = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        whole = held.size - held.size % (8 * _WORDS)
        if whole:
            rows = held[:whole].view(np.uint64).reshape(-1, _WORDS)
            state.update(rows.sum(axis=0, dtype=np.uint64).data)
            state.update(rows.sum(axis=1, dtype=np.uint64).data)
        state.update(held[whole:].data)
    return state.digest()[:16]
