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

LEAST_INPUTS = 4
"""Living weights of a unit below which it says nothing: of two or three, many are parallel by chance."""

LEAST_ROWS = 16
"""Rows below which what a layer makes of them says nothing."""


def parallel_units(weight: np.ndarray, bias: np.ndarray) -> int:
    """How many units weigh their inputs alike, against thresholds of their own.

    Args:
        weight: of some units with at least ``LEAST_INPUTS`` living weights each, float of shape
            (units, inputs).
        bias: of shape (units,).

    Returns:
        The size of the largest such group; 0 if it is too small to mean anything.
    """
    least = _least(len(weight))
    if len(weight) < least:
        return 0
    cosines, lengths = _cosines(weight)
    members, signs = _largest_group(cosines)
    size = int(members.sum())
    if size < least:
        return 0
    thresholds = (bias * signs / lengths)[members]
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
    counts = np.count_nonzero(outputs > 0, axis=0)
    partly = (counts > 0) & (counts < rows)
    least = _least(units)
    if rows < LEAST_ROWS or np.count_nonzero(partly) < least:
        return 0
    values, counts = outputs.T[partly], counts[partly]
    cosines, _ = _cosines(values - values.mean(axis=1, keepdims=True))
    members, signs = _largest_group(cosines)
    levels = np.where(signs > 0, counts, rows - counts)[members]
    size = len(levels)
    return size if size >= least and 2 * int(np.bincount(levels).max()) <= size else 0


def _cosines(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each two rows, NaN where one has no length, and the lengths."""
    own = torch.from_numpy(np.ascontiguousarray(vectors))
    with np.errstate(all="ignore"):
        products = (own @ own.T).numpy()  # in torch's threads, which a user sets
        lengths = np.sqrt(products.diagonal())
        return products / np.outer(lengths, lengths), lengths


def _largest_group(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Who is parallel to the one to whom most are, boolean, and with which sign."""
    near = np.abs(cosines) > _PARALLEL
    centre = int(near.sum(axis=1).argmax())
    return near[centre], np.sign(cosines[centre])


def _least(units: int) -> int:
    return max(_LEAST_UNITS, units // _LEAST_PART)
