"""A short name of a party's arrays, taken while they are read for something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

import numpy as np

from .tags import ArrayTags, TagOfPieces

_LARGE = 1 << 16  # bytes from which on reading an array once more costs more than a name that grows


class Fingerprint:
    """Names what arrays hold: equal for equal ones, for others only by chance.

    Reading the arrays of a large model from memory takes longer than naming them. So whoever reads one
    anyway hands its pieces over while they are in the cache; the others are read for the name.

    Args:
        tags: of the party.
        arrays: of any shapes and dtypes.
    """

    def __init__(self, tags: ArrayTags, arrays: Sequence[np.ndarray]) -> None:
        self._tags = tags
        self._arrays = arrays
        self._growing: dict[int, TagOfPieces] = {}

    def reader(self, k: int) -> Callable[[np.ndarray], None] | None:
        """What is to be given an array's elements, all of them and in their order.

        Args:
            k: number of the array.

        Returns:
            A function of a one-dimensional piece; None for an array that is not worth it.
        """
        if self._arrays[k].nbytes < _LARGE:
            return None
        self._growing[k] = self._tags.of_pieces(_kind(self._arrays[k]))
        return self._growing[k].add

    def digest(self) -> bytes:
        """The name, 32 bytes; once."""
        state = sha256()
        for k, array in enumerate(self._arrays):
            tag = self._growing.get(k)
            whole = tag is not None and tag.read == array.nbytes
            state.update(tag.end() if tag is not None and whole else self._tags.of(array, _kind(array)))
        return state.digest()


def _kind(array: np.ndarray) -> bytes:
    return repr((array.shape, array.dtype.str)).encode()
