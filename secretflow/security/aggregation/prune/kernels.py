"""The inner loop of encoding, once in numpy and once compiled; both give the same bits.

The compiled one reads a number, scales, rounds and checks it, adds it onto the pad and writes it, all in one
pass. Importing numba and compiling take one to two seconds, so only large vectors are worth it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

COMPILED_FROM = 1 << 19
"""Elements from which on the compiled loop pays off within some hundred calls."""

Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray, "np.ndarray | None", float, float], bool]


def kernel_for(size: int, dtype: np.dtype) -> Kernel:
    """Chooses the loop.

    Args:
        size: elements of the whole vector.
        dtype: of the numbers.

    Returns:
        A function of

        * out: signed integers of 32 or 64 bits, shape (m,), to be written,
        * pad: what the encoded numbers are added onto, modulo the ring; shape and dtype of ``out``,
        * values: floats, one-dimensional,
        * index: positions in ``values``, int64 of shape (m,), or None for its first m,
        * scale: ring units for 1.0,
        * limit: largest magnitude allowed, in ring units,

        that returns whether all numbers were finite and within the limit; if not, what it wrote is void.
    """
    if size >= COMPILED_FROM and dtype in (np.float32, np.float64) and dtype.isnative:
        return _compiled()
    return _vectorised


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
    def loop(
        out: np.ndarray,
        pad: np.ndarray,
        values: np.ndarray,
        index: np.ndarray | None,
        scale: float,
        limit: float,
    ) -> bool:
        fits = np.bool_(True)
        for i in range(out.size):
            units = np.float64(values[i if index is None else index[i]]) * scale
            fits &= abs(units) <= limit
            out[i] = pad[i] + out.dtype.type(np.rint(units))
        return bool(fits)

    return loop
