"""Fully connected layers that sort rows into bins, told by their weights or by what they make of rows.

A server that chooses the weights can have a layer's units all measure one projection of the row against
ascending thresholds. Where the gradients of two neighbouring units differ, they differ by the rows whose
projection lies between their thresholds, and a row that lies there alone is read exactly, off an average of
any number of parties. No training is known to come to such a layer. To use before training on weights from
outside.

Source: Fowl et al., "Robbing the Fed: Directly obtaining private data in federated learning with modified
models", ICLR 2022, section 3, for the layer; how it is told from others is ours.
"""

from __future__ import annotations

import numpy as np
import torch

_PARALLEL = 0.999
"""Cosine from which on two units count as parallel."""

_LEAST_UNITS, _LEAST_PART = 8, 4
"""Units of one group, and one in how many units, from which on a layer counts as degenerate."""

_SMALLEST = 1e-30
"""Square of a length below which, and above one over which, rows are scaled to stay in float32's range."""

LEAST_INPUTS = 4
"""Living weights of a unit below which it says nothing: of two or three, many are parallel by chance."""

LEAST_ROWS = 16
"""Rows below which what a layer makes of them says nothing."""


def parallel_units(weight: np.ndarray, bias: np.ndarray) -> int:
    """How many units weigh their inputs alike, against thresholds of their own.

    Args:
        weight: of some units with at least ``LEAST_INPUTS`` living weights each, of a float type, of shape
            (units, inputs).
        bias: of shape (units,).

    Returns:
        The size of the largest such group; 0 if it is too small to mean anything.
    """
    least = _least(len(weight))
    if len(weight) < least:
        return 0
    near, products, lengths = _parallel(weight)
    centre, size = _largest_group(near)
    if size < least:
        return 0
    thresholds = (bias * np.sign(products[centre]) / lengths)[near[centre]]
    return size if 2 * len(np.unique(thresholds)) > size else 0


def nested_units(outputs: np.ndarray) -> int:
    """How many units tell rows apart by one number, each at a place of its own.

    Args:
        outputs: what such units give before their activation, float of shape (rows, units).

    Returns:
        The size of the largest group of units that each are positive for a part of the rows and rise and fall
        together, so that the rows of one are among those of the next; 0 if it is too small to mean anything,
        the rows are too few, or most of the group divide them at one place.
    """
    rows, units = outputs.shape
    least = _least(units)
    if rows < LEAST_ROWS or units < least:
        return 0
    near, products, _ = _parallel((outputs - outputs.mean(axis=0, dtype=np.float64)).T)
    # Of layers as they are trained this is the end, in every round.
    if _largest_group(near)[1] < least:
        return 0
    counts = np.count_nonzero(outputs > 0, axis=0)
    partly = (counts > 0) & (counts < rows)
    near &= partly & partly[:, None]
    centre, size = _largest_group(near)
    levels = np.where(products[centre] > 0, counts, rows - counts)[near[centre]]
    return size if size >= least and 2 * int(np.bincount(levels).max()) <= size else 0


def _parallel(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which two rows are parallel, boolean, what has the sign of their product, and the lengths of rows.

    A row without length is parallel to none.
    """
    with np.errstate(all="ignore"):
        products = _products(vectors)
        squares, scales = products.diagonal(), np.ones(1)
        if not (squares.min() > _SMALLEST and squares.max() < 1 / _SMALLEST):
            scales = np.abs(vectors).max(axis=1).astype(np.float64)
            products = _products(vectors / scales[:, None])
            squares = products.diagonal()
        near = products * products > _PARALLEL**2 * np.multiply.outer(squares, squares)
        return near, products, np.sqrt(squares) * scales


def _products(vectors: np.ndarray) -> np.ndarray:
    """Of each two rows, computed in float32; as float64, in which their squares have room."""
    own = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
    return (own @ own.T).double().numpy()  # in torch's threads, which a user sets


def _largest_group(near: np.ndarray) -> tuple[int, int]:
    """To whom most are parallel, and how many are."""
    sizes = np.count_nonzero(near, axis=1)
    centre = int(sizes.argmax())
    return centre, int(sizes[centre])


def _least(units: int) -> int:
    return max(_LEAST_UNITS, units // _LEAST_PART)
