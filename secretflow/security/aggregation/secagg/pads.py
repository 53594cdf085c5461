"""Pads: AES-256 in counter mode as a pseudo-random generator of ring elements.

A pad depends on (key, call number) alone: the call number is the nonce, the upper 96 bits of the counter
block, and the lower 32 bits count blocks from 2 on. That is the key stream of GCM (NIST SP 800-38D, section
6.5), and GCM is how it is drawn: OpenSSL has vector code for it that its plain counter mode lacks, and twice
the speed is worth the tag that is computed on the way and never read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

# Small enough that a pad is still in the cache when it is used, a multiple of the AES block.
_PIECE_BYTES = 1 << 18
_ZEROS = memoryview(bytes(_PIECE_BYTES))
_AES_BLOCK_BYTES = 16
_NONCE_BYTES = 12


class Pads:
    """The sum of one call's pads, drawn piece by piece.

    Args:
        keys: for each pad its key of 32 bytes, and whether it is subtracted, as one party of a pair does.
        call: number of the call, in [0, 2^64); never to be used twice with the same key.
    """

    def __init__(self, keys: Sequence[tuple[bytes, bool]], call: int) -> None:
        mode = GCM(call.to_bytes(_NONCE_BYTES, "big"))
        self._streams = [(Cipher(AES(key), mode).encryptor(), negative) for key, negative in keys]
        self._next = np.empty(_PIECE_BYTES + _AES_BLOCK_BYTES, np.uint8)
        self._sum = np.zeros_like(self._next)  # of no pads, and not what this process had in its memory

    @staticmethod
    def piece(dtype: np.dtype) -> int:
        """Most elements of a dtype that can be drawn at once."""
        return _PIECE_BYTES // dtype.itemsize

    def draw(self, size: int, dtype: np.dtype) -> np.ndarray:
        """The next elements of the sum.

        Args:
            size: how many, from 0 to ``piece(dtype)``.
            dtype: an unsigned little-endian dtype; one key stream runs through draws of different dtypes.

        Returns:
            An array that is overwritten by the next draw.
        """
        size_bytes = size * dtype.itemsize
        for k, (stream, negative) in enumerate(self._streams):
            scratch = self._next if k else self._sum
            stream.update_into(_ZEROS[:size_bytes], scratch.data)
            pad = scratch[:size_bytes].view(dtype)
            total = self._sum[:size_bytes].view(dtype)
            if k:
                (np.subtract if negative else np.add)(total, pad, out=total)
            elif negative:
                np.negative(total, out=total)
        return self._sum[:size_bytes].view(dtype)

    def add_to(self, elements: np.ndarray) -> None:
        """Adds the next elements of the sum, in place.

        Args:
            elements: one-dimensional array of an unsigned little-endian dtype.
        """
        piece = self.piece(elements.dtype)
        for start in range(0, elements.size, piece):
            part = elements[start : start + piece]
            np.add(part, self.draw(part.size, part.dtype), out=part)
