"""The loops of lanes and of rounding, once in numpy and once compiled; both give the same bits.

The compiled ones pay off where those of :mod:`.kernels` do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .kernels import pays_off

BLOCK = 1024
"""Lanes of a block, see :mod:`.lanes`."""

_WORD = 64
_DOUBLE = np.dtype(np.float64)
_RANDOM_BITS = 16
_AT_ONCE = 4096  # numbers that fit into the first cache


class LaneKernels(NamedTuple):
    """Loops over lanes, see :mod:`.lanes`, and over updates, see :mod:`.rounding`.

    Attributes:
        join: (lanes, digits, powers) writes the sum of each lane's digits times the powers, block by block.
        split: (digits, lanes, powers, offset, mask, half) writes the digits of ``(lane + offset) & mask``,
            each less ``half``.
        pack: (words, lanes, bits) puts lanes into words of zero.
        unpack: (lanes, words, bits) takes them out.
        differ: (out, values, reference, rest) writes ``values - reference + rest`` and returns the largest
            magnitude, or infinity if one is no finite number.
        round_off: (digits, rest, random, scale, limit) writes ``floor(rest * scale + random / 2^16)``, a
            number beyond the limit as the limit, takes ``digit / scale`` off the rest, and returns how many
            were beyond. Random are 16 bits each, the limit is below 2^15. It computes in the precision of the
            rest, and ``rest * scale`` is rounded to a multiple of 2^-16 before.
    """

    join: Callable[[np.ndarray, np.ndarray, np.ndarray], None]
    split: Callable[[np.ndarray, np.ndarray, np.ndarray, np.uint64, np.uint64, int], None]
    pack: Callable[[np.ndarray, np.ndarray, int], None]
    unpack: Callable[[np.ndarray, np.ndarray, int], None]
    differ: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]
    round_off: Callable[[np.ndarray, np.ndarray, np.ndarray, float, int], int]


def lane_kernels_for(size: int, dtype: np.dtype = _DOUBLE) -> LaneKernels:
    """Chooses the loops.

    Args:
        size: numbers that are worked on.
        dtype: of them, if they are floats.
    """
    return compiled() if pays_off(size, dtype) else VECTORISED


def _blocks(lanes: int) -> Iterator[tuple[int, int]]:
    """Where each block of lanes begins and ends."""
    for start in range(0, lanes, BLOCK):
        yield start, min(start + BLOCK, lanes)


def _join(lanes: np.ndarray, digits: np.ndarray, powers: np.ndarray) -> None:
    padded = np.zeros(lanes.size * powers.size, np.int64)
    padded[: digits.size] = digits
    for start, end in _blocks(lanes.size):
        rows = padded[start * powers.size : end * powers.size].view(np.uint64).reshape(powers.size, -1)
        np.sum(rows * powers[:, np.newaxis], axis=0, out=lanes[start:end])


def _split(
    digits: np.ndarray, lanes: np.ndarray, powers: np.ndarray, offset: np.uint64, mask: np.uint64, half: int
) -> None:
    base, per_lane = powers[1] if powers.size > 1 else mask, powers.size
    for start, end in _blocks(lanes.size):
        left = (lanes[start:end] + offset) & mask
        for k in range(per_lane):
            first = start * per_lane + k * (end - start)
            own = digits[first : first + end - start]
            left, digit = np.divmod(left, base) if k + 1 < per_lane else (left, left)
            own[:] = digit[: own.size].astype(np.int64) - half


def _pack(words: np.ndarray, lanes: np.ndarray, bits: int) -> None:
    each = np.unpackbits(lanes.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")[:, :bits]
    packed = np.packbits(each.ravel(), bitorder="little")
    words.view(np.uint8)[: packed.size] = packed


def _unpack(lanes: np.ndarray, words: np.ndarray, bits: int) -> None:
    first = np.arange(lanes.size, dtype=np.uint64) * np.uint64(bits)
    place, shift = (first >> np.uint64(6)).astype(np.int64), first & np.uint64(_WORD - 1)
    following = words.take(place + 1, mode="clip")
    # In two steps, for a shift by 64 is undefined.
    upper = (following << (np.uint64(_WORD - 1) - shift)) << np.uint64(1)
    np.bitwise_and((words[place] >> shift) | upper, np.uint64(2**bits - 1), out=lanes)


def _differ(out: np.ndarray, values: np.ndarray, reference: np.ndarray, rest: np.ndarray) -> float:
    np.subtract(values, reference, out=out)
    out += rest
    largest = float(max(np.max(out, initial=0), -np.min(out, initial=0)))
    return largest if np.isfinite(largest) else float("inf")


def _round_off(digits: np.ndarray, rest: np.ndarray, random: np.ndarray, scale: float, limit: int) -> int:
    parts, most, unit = _constants(rest.dtype, scale, limit)
    units = rest * parts
    within = np.clip(units, -most, most)
    digits[:] = (np.rint(within).astype(np.int32) + random) >> np.int32(_RANDOM_BITS)
    rest -= digits.astype(rest.dtype) * unit
    return int(np.count_nonzero(units != within))


def _constants(dtype: np.dtype, scale: float, limit: int) -> tuple[Any, Any, Any]:
    """Parts of a step for 1.0, the limit in such parts, and the size of a step, in a dtype."""
    one = 2**_RANDOM_BITS
    return dtype.type(scale * one), dtype.type(limit * one), dtype.type(1 / scale if scale else 0)


VECTORISED = LaneKernels(_join, _split, _pack, _unpack, _differ, _round_off)


@cache
def compiled() -> LaneKernels:
    """The compiled loops."""
    return LaneKernels(*_compiled_digits(), *_compiled_lanes(), *_compiled_rounding())


def _compiled_digits() -> tuple[Callable[..., Any], ...]:
    """Loops that join digits to lanes and split lanes into digits."""
    import numba  # here, because it takes longer to import than small models take to aggregate

    # Functions of their own have the compiler know that their arrays are apart, so that it uses vectors.
    @numba.njit(nogil=True)
    def add(lanes: np.ndarray, digits: np.ndarray, power: int) -> None:
        for i in range(digits.size):
            lanes[i] += power * np.int64(digits[i])

    @numba.njit(nogil=True)
    def join_signed(lanes: np.ndarray, digits: np.ndarray, powers: np.ndarray) -> None:
        per_lane = powers.size
        for start in range(0, lanes.size, BLOCK):
            block = lanes[start : start + BLOCK]
            block[:] = 0
            for k in range(per_lane):
                first = start * per_lane + k * block.size
                add(block, digits[first : first + block.size], powers[k])

    def join(lanes: np.ndarray, digits: np.ndarray, powers: np.ndarray) -> None:
        join_signed(lanes.view(np.int64), digits, powers.view(np.int64))

    @numba.njit(nogil=True)
    def take(digits: np.ndarray, left: np.ndarray, base: np.uint64, half: int) -> None:
        for i in range(digits.size):
            next_left = left[i] // base
            digits[i] = np.int64(left[i] - next_left * base) - half
            left[i] = next_left

    @numba.njit(nogil=True)
    def split(
        digits: np.ndarray,
        lanes: np.ndarray,
        powers: np.ndarray,
        offset: np.uint64,
        mask: np.uint64,
        half: int,
    ) -> None:
        per_lane = powers.size
        base = powers[1] if per_lane > 1 else mask
        for start in range(0, lanes.size, BLOCK):
            left = (lanes[start : start + BLOCK] + offset) & mask
            for k in range(per_lane):
                first = start * per_lane + k * left.size
                own = digits[first : first + left.size]
                if k + 1 < per_lane:
                    take(own, left, base, half)
                else:
                    for i in range(own.size):
                        own[i] = np.int64(left[i]) - half

    return join, split


def _compiled_lanes() -> tuple[Callable[..., Any], ...]:
    """Loops that put lanes into words and take them out."""
    import numba

    @numba.njit(nogil=True)
    def pack(words: np.ndarray, lanes: np.ndarray, bits: int) -> None:
        width, mask = np.uint64(bits), np.uint64(2**_WORD - 1) >> np.uint64(_WORD - bits)
        held, filled, place = np.uint64(0), np.uint64(0), 0
        for i in range(lanes.size):
            lane = lanes[i] & mask
            held |= lane << filled
            filled += width
            if filled >= np.uint64(_WORD):
                words[place] = held
                place += 1
                filled -= np.uint64(_WORD)
                held = np.uint64(0)
                if filled:
                    held = lane >> (width - filled)
        if filled:
            words[place] = held

    @numba.njit(nogil=True)
    def unpack(lanes: np.ndarray, words: np.ndarray, bits: int) -> None:
        width, mask = np.uint64(bits), np.uint64(2**_WORD - 1) >> np.uint64(_WORD - bits)
        shift, place = np.uint64(0), 0
        for i in range(lanes.size):
            lane = words[place] >> shift
            shift += width
            if shift >= np.uint64(_WORD):
                shift -= np.uint64(_WORD)
                place += 1
                if shift:
                    lane |= words[place] << (width - shift)
            lanes[i] = lane & mask

    return pack, unpack


def _compiled_rounding() -> tuple[Callable[..., Any], ...]:
    """Loops that find an update and its largest magnitude, and round it off."""
    import numba

    @numba.njit(nogil=True)
    def subtract(out: np.ndarray, values: np.ndarray, reference: np.ndarray, rest: np.ndarray) -> None:
        for i in range(out.size):
            out[i] = (values[i] - reference[i]) + rest[i]

    @numba.njit(nogil=True)
    def most_of(bits: np.ndarray, magnitude: int) -> int:
        largest = bits.dtype.type(0)
        for i in range(bits.size):
            largest = max(largest, bits.dtype.type(bits[i] & magnitude))
        return largest

    @numba.njit(nogil=True)
    def differ_bits(
        out: np.ndarray,
        bits: np.ndarray,
        magnitude: int,
        values: np.ndarray,
        reference: np.ndarray,
        rest: np.ndarray,
    ) -> int:
        largest = bits.dtype.type(0)
        for start in range(0, out.size, _AT_ONCE):
            piece = slice(start, start + _AT_ONCE)
            subtract(out[piece], values[piece], reference[piece], rest[piece])
            # As integers floats are in the order of their magnitudes, those that are not finite at the end.
            largest = max(largest, most_of(bits[piece], magnitude))
        return largest

    def differ(out: np.ndarray, values: np.ndarray, reference: np.ndarray, rest: np.ndarray) -> float:
        bits = out.view(f"u{out.itemsize}")
        magnitude = bits.dtype.type(2 ** (8 * out.itemsize - 1) - 1)
        largest = differ_bits(out, bits, magnitude, values, reference, rest)
        found = float(np.array(largest, bits.dtype).view(out.dtype))
        return found if np.isfinite(found) else float("inf")

    @numba.njit(nogil=True)
    def round_parts(
        digits: np.ndarray, rest: np.ndarray, random: np.ndarray, parts: float, most: float, unit: float
    ) -> int:
        beyond = np.int32(0)  # of 32 bits, as what it counts, for vectors
        for i in range(digits.size):
            units = rest[i] * parts
            within = min(max(units, -most), most)
            beyond += np.int32(units != within)
            digit = (np.int32(np.rint(within)) + np.int32(random[i])) >> np.int32(_RANDOM_BITS)
            digits[i] = np.int16(digit)
            rest[i] -= rest.dtype.type(digit) * unit
        return int(beyond)

    def round_off(digits: np.ndarray, rest: np.ndarray, random: np.ndarray, scale: float, limit: int) -> int:
        return round_parts(digits, rest, random, *_constants(rest.dtype, scale, limit))

    return differ, round_off
