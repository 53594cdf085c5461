"""An average as the server has it, for those who were not there."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

import numpy as np


class LastAverage(NamedTuple):
    """The numbers of an average.

    Attributes:
        arrays: its numbers, 0 where nothing travelled.
        whole: for each array whether all of it travelled.
    """

    arrays: list[np.ndarray]
    whole: list[bool]

    def digest(self) -> bytes:
        """32 bytes, the same for the same numbers at the same places."""
        state = sha256(bytes(self.whole))
        for array in self.arrays:
            state.update(repr((array.shape, array.dtype.str)).encode())
            state.update(np.ascontiguousarray(array).reshape(-1).data)
        return state.digest()
