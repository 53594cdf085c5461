"""The loops of lanes and of rounding, once in numpy and once compiled; both give the same bits.

The compiled ones pay off where those of :mod:`.kernels` do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .kernels import pays_off

_WORD = 64
_DOUBLE = np.dtype(np.float64)
_RANDOM_ONE = 2.0**16
_AT_ONCE = 4096  # numbers that fit into the first cache


class LaneKernels(NamedTuple):
    """Loops over lanes, see :mod:`.lanes`, and over updates, see :mod:`.rounding`.

    Attributes:
        join: (lanes, digits, powers) writes the sum of each lane's digits times the powers.
        split: (digits, lanes, powers, offset, mask, half) writes the digits of ``(lane + offset) & mask``,
            each less ``half``.
        pack: (words, lanes, bits) puts lanes into words of zero.
        unpack: (lanes, words, bits) takes them out.
        differ: (out, values, reference, rest) writes ``values - reference + rest`` and returns the largest
            magnitude, or infinity if one is no finite number.
        round_off: (digits, rest, random, scale, limit) writes ``floor(rest * scale + random)``, a number
            beyond the limit as the limit, takes ``digit / scale`` off the rest, and returns how many were
            beyond. Random are 16 bits each, which stand for the middles of 2^16 parts of [0, 1).
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


def _join(lanes: np.ndarray, digits: np.ndarray, powers: np.ndarray) -> None:
    padded = np.zeros(lanes.size * powers.size, np.int64)
    padded[: digits.size] = digits
    np.sum(padded.view(np.uint64).reshape(lanes.size, powers.size) * powers, axis=1, out=lanes)


def _split(
    digits: np.ndarray, lanes: np.ndarray, powers: np.ndarray, offset: np.uint64, mask: np.uint64, half: int
) -> None:
    base, left = powers[1] if powers.size > 1 else mask, (lanes + offset) & mask
    for k in range(powers.size):
        own = digits[k :: powers.size]
        left, digit = np.divmod(left, base) if k + 1 < powers.size else (left, left)
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
    units = rest.astype(np.float64) * scale
    beyond = np.count_nonzero(np.abs(units) > limit)
    np.clip(units, -limit, limit, out=units)
    units += (random + 0.5) / _RANDOM_ONE
    np.floor(units, out=units)
    digits[:] = units
    if scale:
        rest -= (units * (1 / scale)).astype(rest.dtype)
    return int(beyond)


VECTORISED = LaneKernels(_join, _split, _pack, _unpack, _differ, _round_off)


@cache
def compiled() -> LaneKernels:
    """The compiled loops."""
    return LaneKernels(*_compiled_digits(), *_compiled_lanes(), *_compiled_rounding())


def _compiled_digits() -> tuple[Callable[..., Any], ...]:
    """Loops that join digits to lanes and split lanes into digits."""
    import numba  # here, because it takes longer to import than small models take to aggregate

    @numba.njit(nogil=True)
    def join(lanes: np.ndarray, digits: np.ndarray, powers: np.ndarray) -> None:
        per_lane = powers.size
        base, whole = np.int64(powers[min(1, per_lane - 1)]), digits.size // per_lane
        rows = digits[: whole * per_lane].reshape(whole, per_lane)
        for i in range(whole):
            total = np.int64(0)
            for k in range(per_lane - 1, -1, -1):
                total = total * base + rows[i, k]
            lanes[i] = np.uint64(total)
        if whole < lanes.size:
            total = np.int64(0)
            for k in range(digits.size - 1, whole * per_lane - 1, -1):
                total = total * base + digits[k]
            lanes[whole] = np.uint64(total)

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
        for i in range(lanes.size):
            left = (lanes[i] + offset) & mask
            for k in range(min(per_lane, digits.size - i * per_lane)):
                next_left = left // base if k + 1 < per_lane else np.uint64(0)
                digits[i * per_lane + k] = np.int64(left - next_left * base) - half
                left = next_left

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
            end = min(start + _AT_ONCE, out.size)
            for i in range(start, end):
                out[i] = (values[i] - reference[i]) + rest[i]
            # As integers floats are in the order of their magnitudes, those that are not finite at the end.
            for i in range(start, end):
                largest = max(largest, bits.dtype.type(bits[i] & magnitude))
        return largest

    def differ(out: np.ndarray, values: np.ndarray, reference: np.ndarray, rest: np.ndarray) -> float:
        bits = out.view(f"u{out.itemsize}")
        magnitude = bits.dtype.type(2 ** (8 * out.itemsize - 1) - 1)
        largest = differ_bits(out, bits, magnitude, values, reference, rest)
        found = float(np.array(largest, bits.dtype).view(out.dtype))
        return found if np.isfinite(found) else float("inf")

    @numba.njit(nogil=True)
    def round_off(digits: np.ndarray, rest: np.ndarray, random: np.ndarray, scale: float, limit: int) -> int:
        beyond, most, unit = 0, np.float64(limit), 1 / scale if scale else 0.0
        for i in range(digits.size):
            units = np.float64(rest[i]) * scale
            if abs(units) > most:
                beyond += 1
            units = min(max(units, -most), most)
            units = np.floor(units + (np.float64(random[i]) + 0.5) / _RANDOM_ONE)
            digits[i] = np.int16(units)
            rest[i] -= rest.dtype.type(units * unit)
        return beyond

    return differ, round_off
