"""Digests that parties add up to see whether all have the same, see :func:`.protocol.are_everybodys`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import sha256

import numpy as np

DIGEST_BITS = 48
"""So many parties' sums fit into 63 bits."""


def digest_of_bytes(data: bytes) -> int:
    """What is equal for those that have the same bytes, :data:`DIGEST_BITS` bits."""
    return int.from_bytes(sha256(data).digest()[: DIGEST_BITS // 8], "big")


def digest_of_nothing() -> int:
    """What nobody else has."""
    return secrets.randbits(DIGEST_BITS)


def digest_of_weights(arrays: Sequence[np.ndarray]) -> int:
    """What is equal for parties that have the same weights, whatever the sign of a zero.

    Args:
        arrays: own arrays.

    Returns:
        What nobody else has if a number is not finite, so that the average comes to it and names it.
    """
    state = sha256()
    for array in arrays:
        if not np.isfinite(array).all():
            return digest_of_nothing()
        state.update(np.ascontiguousarray(array + 0).data)  # minus zero becomes zero
    return digest_of_bytes(state.digest())
