"""The inner loops of encoding and of opening, once in numpy and once compiled; both give the same bits.

The compiled ones read a number, work on it and write it, all in one pass; scattered ones are fetched first, a
piece at a time. Importing numba and compiling take
one to two seconds, so only large vectors are worth it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

COMPILED_FROM = 1 << 19
"""Elements from which on the compiled loop pays off within some hundred calls."""

_FETCHED_AT_ONCE = 2048  # of 8 bytes they fit into the first cache

Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray, "np.ndarray | None", float, float], bool]

Scatter = Callable[[np.ndarray, np.ndarray, np.ndarray, float], None]


def kernel_for(size: int, dtype: np.dtype) -> Kernel:
    """Chooses the loop.

    Args:
        size: floats of the whole model, whether they travel or not: a pruned one has begun whole, and has
            compiled the loop by then.
        dtype: of the numbers.

    Returns:
        A function of

        * out: signed integers of 32 or 64 bits, shape (m,), to be written,
        * pad: what the encoded numbers are added onto, modulo the ring; shape and dtype of ``out``,
        * values: floats, one-dimensional,
        * index: positions in ``values``, integers of shape (m,), or None for its first m,
        * scale: ring units for 1.0,
        * limit: largest magnitude allowed, in ring units,

        that returns whether all numbers were finite and within the limit; if not, what it wrote is void.
    """
    return _compiled() if pays_off(size, dtype) else _vectorised


def scatter_for(size: int, dtype: np.dtype) -> Scatter:
    """Chooses the loop that puts what travelled into an array.

    Args:
        size: as for :func:`kernel_for`.
        dtype: of the array.

    Returns:
        A function of

        * array: floats, one-dimensional, changed in place,
        * index: positions in it, integers of shape (m,),
        * numbers: signed integers or floats, shape (m,),
        * scale: what they are divided by, a power of two.
    """
    return _compiled_scatter() if pays_off(size, dtype) else _vectorised_scatter


def pays_off(size: int, dtype: np.dtype) -> bool:
    """Whether a compiled loop over so many numbers of a dtype pays off."""
    return size >= COMPILED_FROM and dtype in (np.float32, np.float64) and dtype.isnative


def _vectorised(
    out: np.ndarray,
    pad: np.ndarray,
    values: np.ndarray,
    index: np.ndarray | None,
    scale: float,
    limit: float,
) -> bool:
    # In float64 from the start: numpy would multiply float16 and float32 in their own precision.
    units = (values[: out.size] if index is None else values.take(index)).astype(np.float64)
    units *= scale
    # Written so that NaN, which compares false with everything, is refused as well.
    if not (units.max() <= limit and units.min() >= -limit):
        return False
    np.copyto(out, np.rint(units, out=units), casting="unsafe")
    np.add(out, pad, out=out)
    return True


@cache
def _compiled() -> Kernel:
    import numba  # here, because it takes longer to import than small models take to aggregate

    @numba.njit(nogil=True)
    def encode(out: np.ndarray, pad: np.ndarray, values: np.ndarray, scale: float, limit: float) -> bool:
        fits = np.bool_(True)
        for i in range(out.size):
            units = np.float64(values[i]) * scale
            fits &= abs(units) <= limit
            out[i] = pad[i] + out.dtype.type(np.rint(units))
        return bool(fits)

    @numba.njit(nogil=True)
    def loop(
        out: np.ndarray,
        pad: np.ndarray,
        values: np.ndarray,
        index: np.ndarray | None,
        scale: float,
        limit: float,
    ) -> bool:
        if index is None:
            return encode(out, pad, values, scale, limit)
        fits = True
        # Fetched first, in a loop so short that the processor waits for many of them at once.
        fetched = np.empty(_FETCHED_AT_ONCE, values.dtype)
        for start in range(0, out.size, _FETCHED_AT_ONCE):
            piece = slice(start, start + _FETCHED_AT_ONCE)
            positions = index[piece]
            for i in range(positions.size):
                fetched[i] = values[positions[i]]
            fits &= encode(out[piece], pad[piece], fetched, scale, limit)
        return fits

    return loop


def _vectorised_scatter(array: np.ndarray, index: np.ndarray, numbers: np.ndarray, scale: float) -> None:
    array[index] = numbers / scale


@cache
def _compiled_scatter() -> Scatter:
    import numba

    @numba.njit(nogil=True)
    def loop(array: np.ndarray, index: np.ndarray, numbers: np.ndarray, scale: float) -> None:
        part = 1 / scale  # exact, and as quick as a division is slow
        for i in range(index.size):
            array[index[i]] = array.dtype.type(np.float64(numbers[i]) * part)

    return loop
