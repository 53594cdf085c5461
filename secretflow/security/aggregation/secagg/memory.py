"""Memory for uploads that is used again."""

from __future__ import annotations

import sys

import numpy as np

_HELD_BY_NOBODY_ELSE = 2  # the attribute and the argument of getrefcount


class Recycled:
    """Keeps the memory of the last upload, for a fresh 40 MB costs as much as encoding into it.

    It is handed out again only when nothing refers to what was handed out before, so an array that
    somebody still holds never changes under his hands.
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def take(self, size: int, dtype: np.dtype) -> np.ndarray:
        """An array of any content.

        Args:
            size: elements.
            dtype: of the elements.
        """
        size_bytes = size * dtype.itemsize
        if self._memory.size != size_bytes or sys.getrefcount(self._memory) > _HELD_BY_NOBODY_ELSE:
            self._memory = np.empty(size_bytes, np.uint8)
        return self._memory.view(dtype)
