"""Fixed point in the ring of integers modulo 2^32 or 2^64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from secretflow import _validate

from .errors import AggregationError
from .kernels import kernel_for
from .pads import Pads

_DEFAULT_FXP_BITS = {32: 20, 64: 40}


@dataclass(frozen=True)
class Ring:
    """A ring and the number of its bits that lie behind the binary point.

    Attributes:
        bits: 32 or 64.
        fxp_bits: fractional bits. An encoded number is exact to 2^-(fxp_bits + 1) and its magnitude may
            reach about 2^(bits - 1 - fxp_bits).
    """

    bits: int
    fxp_bits: int

    @classmethod
    def make(cls, bits: int, fxp_bits: int | None, parties: int) -> Ring:
        """Validates the numbers a user gives.

        Args:
            bits: 32 or 64.
            fxp_bits: fractional bits, or None for 20 (32-bit ring) or 40 (64-bit ring).
            parties: number of numbers that are added up.

        Raises:
            ValueError: a number is out of its range, or the sum of the parties' numbers would have no
                bit left before the point.
        """
        bits, fxp_bits = _validate.plain(bits), _validate.plain(fxp_bits)
        _validate.one_of("ring_bits", bits, _DEFAULT_FXP_BITS)
        if fxp_bits is None:
            fxp_bits = _DEFAULT_FXP_BITS[bits]
        largest = bits - 2 - (parties - 1).bit_length()
        fits = isinstance(fxp_bits, int) and not isinstance(fxp_bits, bool) and 1 <= fxp_bits <= largest
        what = f"an integer from 1 to {largest} in a ring of {bits} bits with {parties} parties"
        _validate.check(fits, "fxp_bits", fxp_bits, what)
        return cls(bits, fxp_bits)

    @property
    def dtype(self) -> np.dtype:
        """Little-endian unsigned integer of ``bits`` bits."""
        return np.dtype(f"<u{self.bits // 8}")

    @property
    def one(self) -> float:
        """What the number 1.0 is encoded as."""
        return float(2**self.fxp_bits)

    @property
    def capacity(self) -> float:
        """Largest magnitude, in ring units, of a sum that decodes to itself.

        2^-20 of the range is kept back for the rounding of each party's number.
        """
        return (1 - 2.0**-20) * 2.0 ** (self.bits - 1)


def encode_padded(
    out: np.ndarray,
    values: np.ndarray,
    scale: float,
    limit: float,
    pads: Pads,
    index: np.ndarray | None = None,
    model_size: int | None = None,
    read: Callable[[np.ndarray], None] | None = None,
) -> None:
    """Writes ``round(values * scale)`` plus the pads into ring elements.

    Args:
        out: unsigned array of the ring's dtype, one-dimensional.
        values: one-dimensional float array.
        scale: ring units for 1.0.
        limit: largest magnitude allowed, in ring units.
        pads: the pads of the call; as many elements are drawn as ``out`` has.
        index: integer array of ``out.size`` positions to take from ``values``; None takes all.
        model_size: floats of all arrays, whether they travel or not; None if ``out`` has all of them.
        read: is given ``values``, piece by piece, while they are in the cache; only without ``index``.

    Raises:
        AggregationError: a number is NaN, infinite or beyond the limit; says the largest magnitude.
    """
    signed = np.dtype(out.dtype.str.replace("u", "i"))
    encode = kernel_for(out.size if model_size is None else model_size, values.dtype)
    piece = pads.piece(out.dtype)
    for start in range(0, out.size, piece):
        part = out[start : start + piece]
        pad = pads.draw(part.size, part.dtype)
        rest, chosen = (values[start:], None) if index is None else (values, index[start : start + piece])
        if not encode(part.view(signed), pad.view(signed), rest, chosen, scale, limit):
            travelling = values if index is None else values.take(index)
            reach = f"below {limit / scale:g} " if scale else ""
            raise AggregationError(
                f"the largest magnitude is {np.abs(travelling).max():g}, but only finite numbers {reach}"
                "can be encoded"
            )
        if read is not None:
            read(rest[: part.size])


def decode(elements: np.ndarray, scale: float) -> np.ndarray:
    """Gives back float64 numbers from ring elements; negative ones are the upper half of the ring."""
    return elements.view(elements.dtype.str.replace("u", "i")) / scale
