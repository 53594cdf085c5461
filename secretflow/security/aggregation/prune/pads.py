"""Pads: AES-256 in counter mode as a pseudo-random generator of ring elements.

A pad depends on (key, call number) alone. The call number is the upper half of the counter block, the
lower half counts blocks, so the pads of two calls never overlap (for fewer than 2^64 blocks a call).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

# Small enough that the pad is still in the cache when it is added, a multiple of the AES block.
_CHUNK_BYTES = 1 << 17
_ZEROS = bytes(_CHUNK_BYTES)
_AES_BLOCK_BYTES = 16


def add_pad(body: Sequence[np.ndarray], key: bytes, call: int, *, negative: bool = False) -> None:
    """Adds one pad to arrays of ring elements, in place.

    Args:
        body: contiguous one-dimensional arrays of a little-endian unsigned dtype; one key stream runs
            through all of them in order.
        key: 32 bytes.
        call: number of the call, in [0, 2^64); never to be used twice with the same key.
        negative: subtracts the pad instead, as the other party of the pair does.
    """
    combine = np.subtract if negative else np.add
    stream = Cipher(AES(key), CTR(call.to_bytes(8, "big") + bytes(8))).encryptor()
    scratch = np.empty(_CHUNK_BYTES + _AES_BLOCK_BYTES - 1, np.uint8)
    for elements in body:
        chunk = _CHUNK_BYTES // elements.itemsize
        for start in range(0, elements.size, chunk):
            part = elements[start : start + chunk]
            stream.update_into(memoryview(_ZEROS)[: part.nbytes], scratch.data)
            combine(part, scratch[: part.nbytes].view(part.dtype), out=part)
