"""What a party brings to the aggregation: its arrays, and the masks that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .errors import AggregationError

ArrayMasks = Sequence["np.ndarray | None"]
"""One entry for each array, or for each array of two or more dimensions; None where everything lives."""


def as_arrays(data: Any) -> tuple[list[np.ndarray], bool]:
    """Checks one party's input.

    Args:
        data: a float or integer array, DataFrame or Series, or a list of them.

    Returns:
        The arrays, and whether the input was a list.

    Raises:
        AggregationError: anything else.
    """
    is_list = isinstance(data, (list, tuple))
    arrays = []
    for position, item in enumerate(data if is_list else [data]):
        if isinstance(item, (pd.DataFrame, pd.Series)):
            item = item.values
        if not isinstance(item, np.ndarray):
            raise AggregationError(
                f"data[{position}] must be an array (Accept ndarray or dataframe/series only but got another "
                f"type), got {type(item)}"
            )
        if item.dtype.kind not in "fiu":
            raise AggregationError(
                f"data[{position}] must be of numbers (Data type are neither integer nor float), got "
                f"{item.dtype}"
            )
        arrays.append(item)
    if not arrays:
        raise AggregationError("data must be an array or a list of them, got an empty list")
    return arrays, is_list


def align_mask(mask: ArrayMasks, arrays: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """Finds the array that each entry of a mask belongs to.

    Args:
        mask: one entry for each array, or one for each array of two or more dimensions; an entry is an
            array of 0 and 1 with that array's shape, or None where everything lives.
        arrays: one party's arrays.

    Returns:
        One flat boolean array, or None, for each array.

    Raises:
        AggregationError: the numbers of entries or the shapes do not fit, an entry holds something other
            than 0 and 1, or an integer array is masked.
    """
    entries = list(mask)
    if len(entries) != len(arrays):
        matrices = [k for k, array in enumerate(arrays) if array.ndim >= 2]
        if len(entries) != len(matrices):
            raise AggregationError(
                f"prune_mask must have an entry for each of the {len(arrays)} arrays, or of the "
                f"{len(matrices)} with two or more dimensions, got {len(entries)} entries"
            )
        by_position = dict(zip(matrices, entries, strict=True))
        entries = [by_position.get(k) for k in range(len(arrays))]
    aligned: list[np.ndarray | None] = []
    for k, (entry, array) in enumerate(zip(entries, arrays, strict=True)):
        if entry is None:
            aligned.append(None)
            continue
        entry = np.asarray(entry)
        if entry.shape != array.shape:
            raise AggregationError(
                f"prune_mask[{k}] must have the shape of its array, {array.shape}, got {entry.shape}"
            )
        if array.dtype.kind != "f":
            raise AggregationError(
                f"prune_mask[{k}] must be None for an array that is not of floats, got one of {array.dtype}"
            )
        living = entry.ravel() != 0
        if entry.dtype != np.bool_ and not np.array_equal(entry.ravel()[living], np.ones(living.sum())):
            raise AggregationError(f"prune_mask[{k}] must hold 0 and 1 alone, got other numbers")
        aligned.append(living)
    return aligned
