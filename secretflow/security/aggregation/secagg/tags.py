"""Short names of numbers, for whoever has to know them again and must not keep them."""

from __future__ import annotations

import secrets

import numpy as np
from cryptography.hazmat.primitives.ciphers import AEADEncryptionContext, Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

_NONCE = bytes(12)
_TAG_BYTES = 16


class ArrayTags:
    """Names arrays under a key of its own, without which a name tells nothing of them.

    A name is GCM's tag over data that are not encrypted: thirty times as quick as a hash, and as good to
    whoever has not the key.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def of(self, array: np.ndarray, what: bytes) -> bytes:
        """The name of what an array holds, 16 bytes: equal for equal bytes, for others only by chance.

        Args:
            array: of any shape and dtype.
            what: a part of the name, too, such as the dtype.
        """
        held = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return AESGCM(self._key).encrypt(_NONCE, what, held.data)[-_TAG_BYTES:]

    def of_pieces(self, what: bytes) -> TagOfPieces:
        """The name, as of :meth:`of`, of an array that comes piece by piece.

        Args:
            what: see :meth:`of`.
        """
        return TagOfPieces(Cipher(AES(self._key), GCM(_NONCE)).encryptor(), what)


class TagOfPieces:
    """The name of an array that comes piece by piece.

    Args:
        state: of the cipher, at its beginning.
        what: see :meth:`ArrayTags.of`.

    Attributes:
        read: bytes that have come.
    """

    def __init__(self, state: AEADEncryptionContext, what: bytes) -> None:
        self._state = state
        self._what = what
        self.read = 0

    def add(self, piece: np.ndarray) -> None:
        """Takes the next elements.

        Args:
            piece: one-dimensional and contiguous.
        """
        self._state.authenticate_additional_data(piece.view(np.uint8).data)
        self.read += piece.nbytes

    def end(self) -> bytes:
        """The name, 16 bytes; once."""
        self._state.update(self._what)
        self._state.finalize()
        return self._state.tag
