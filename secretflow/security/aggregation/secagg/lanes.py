"""Lanes: small integers of which several share one element of a ring, so that none costs a whole byte.

A lane holds the digits of a number to some base. Lanes are added as numbers, and the digits of their sum are
the sums of their digits, as long as none of these reaches the base.

Lanes come in blocks of :data:`~.lane_kernels.BLOCK`, of which the last may be smaller. A block holds as many
digits in a row as it has room for: the first digits of all of its lanes, then the second ones, and so on. So
processors join and split many lanes at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .lane_kernels import BLOCK, lane_kernels_for
from .pads import Pads

_WORD = 64
_AT_ONCE = 16 * BLOCK  # lanes that stay in the cache with their digits; so many fill whole words when packed


@dataclass(frozen=True)
class Lanes:
    """How integers share lanes.

    Attributes:
        base: of the digits, at least 2. Sums of digits are in [0, base - 1], or with ``signed`` in
            [-(base - 1) / 2, (base - 1) / 2], and then the base is odd.
        per_lane: digits of a lane.
        bits: of a lane, at most 64; ``base ** per_lane`` is at most ``2 ** bits``.
        signed: whether digits have a sign.
    """

    base: int
    per_lane: int
    bits: int
    signed: bool = False

    def __post_init__(self) -> None:
        assert self.base >= 2 and self.bits <= _WORD and self.base**self.per_lane <= 2**self.bits
        assert self.base % 2 or not self.signed

    @classmethod
    def counting(cls, largest: int, bits: int) -> Lanes:
        """Lanes of so many bits for sums from 0 to some number.

        Args:
            largest: sum, below ``2 ** bits``.
            bits: see the attributes.
        """
        base = largest + 1
        per_lane = next(k for k in range(bits, 0, -1) if base**k <= 2**bits)
        return cls(base, per_lane, bits)

    @property
    def is_packed(self) -> bool:
        """Whether a lane has fewer bits than a word."""
        return self.bits < _WORD

    def size_of(self, numbers: int) -> int:
        """How many lanes so many digits take."""
        return -(-numbers // self.per_lane)

    def join(self, digits: np.ndarray) -> np.ndarray:
        """Puts digits into lanes.

        Args:
            digits: signed integers, one-dimensional.

        Returns:
            uint64, one for each lane, modulo 2^64.
        """
        lanes = np.empty(self.size_of(digits.size), "<u8")
        lane_kernels_for(digits.size).join(lanes, digits, self._powers)
        return lanes

    def words_of(self, numbers: int) -> int:
        """How many words of 64 bits so many digits take, with their lanes packed."""
        return -(-self.size_of(numbers) * self.bits // _WORD)

    def write_padded(self, words: np.ndarray, digits: np.ndarray, pads: Pads) -> None:
        """Puts digits into lanes, adds pads to these and packs them, all while they are in the cache.

        Args:
            words: uint64, :meth:`words_of` the digits, to be written as of :func:`pack`.
            digits: signed integers, one-dimensional.
            pads: of the call; each lane takes an element of 64 bits of theirs.
        """
        lanes, kernels = self.size_of(digits.size), lane_kernels_for(digits.size)
        words[-1:] = 0
        memory = np.empty(min(lanes, _AT_ONCE), "<u8")
        for start in range(0, lanes, _AT_ONCE):
            piece = memory[: lanes - start]
            kernels.join(piece, digits[start * self.per_lane :][: piece.size * self.per_lane], self._powers)
            pads.add_to(piece)
            first = start * self.bits // _WORD
            if self.is_packed:
                kernels.pack(words[first:], piece, self.bits)
            else:
                words[first : first + piece.size] = piece

    def split(self, lanes: np.ndarray, numbers: int) -> np.ndarray:
        """Takes the digits of lanes, or of a sum of lanes, apart.

        Args:
            lanes: uint64, of which the lower ``bits`` count.
            numbers: how many digits there are.

        Returns:
            int32, of shape (numbers,).
        """
        digits = np.empty(numbers, np.int32)
        half = (self.base - 1) // 2 if self.signed else 0
        # On top of every digit, so that none is negative while a lane is taken apart.
        offset, mask = np.uint64(half * sum(map(int, self._powers))), np.uint64(2**self.bits - 1)
        lane_kernels_for(numbers).split(digits, lanes, self._powers, offset, mask, half)
        return digits

    @cached_property
    def _powers(self) -> np.ndarray:
        return np.array([self.base**k for k in range(self.per_lane)], "<u8")


def pack(lanes: np.ndarray, bits: int) -> np.ndarray:
    """Puts the lower bits of lanes one behind the other.

    Args:
        lanes: uint64, one-dimensional.
        bits: how many of each, from 1 to 64.

    Returns:
        uint64, the first lane in the lowest bits of the first word; what is left of the last word is 0.
    """
    if bits == _WORD:
        return lanes
    words = np.zeros(-(-lanes.size * bits // _WORD), "<u8")
    lane_kernels_for(lanes.size).pack(words, lanes, bits)
    return words


def unpack(words: np.ndarray, bits: int) -> np.ndarray:
    """The lanes that words hold: as many as there is room for, so there may be zeros behind the last.

    Args:
        words: as of :func:`pack`.
        bits: as for :func:`pack`.

    Returns:
        uint64, each below ``2 ** bits``.
    """
    if bits == _WORD:
        return words
    lanes = np.empty(words.size * _WORD // bits, "<u8")
    lane_kernels_for(lanes.size).unpack(lanes, words, bits)
    return lanes
