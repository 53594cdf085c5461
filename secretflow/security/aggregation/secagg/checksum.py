"""A checksum of numbers that adds up as they do, under a key that the server has not."""

from __future__ import annotations

import numpy as np

from .pads import Pads


def checksum(key: bytes, call: int, numbers: np.ndarray) -> np.ndarray:
    """Each number times a random one, added up.

    The checksums of all parties' numbers add up to that of their sum. Who adds something of less than 2^b to
    the sum without the key finds its checksum with a chance of at most 2^(b - 64): a random linear function
    is a universal hash (Carter and Wegman 1979).

    Args:
        key: 32 bytes, of this call alone.
        call: its number.
        numbers: unsigned integers, one-dimensional.

    Returns:
        One integer modulo 2^64, of shape (1,).
    """
    factors, total = Pads([(key, False)], call), np.zeros(1, "<u8")
    piece = Pads.piece(total.dtype)
    for start in range(0, numbers.size, piece):
        part = numbers[start : start + piece].astype(total.dtype)
        total += np.dot(part, factors.draw(part.size, total.dtype))
    return total
