"""The numbers in a value of a history, for what draws them."""

from __future__ import annotations

from typing import Any

import numpy as np

MOST_NUMBERS = 100


def numbers_of(value: Any, dimensions: int = 2) -> dict[tuple[int, ...], float]:
    """The numbers in a value by their place in it.

    Args:
        value: of a metric: a number, an array or a tensor, such as the accuracy of each class.
        dimensions: most dimensions of an array.

    Returns:
        Of one number itself, under ``()``. Empty for what is no number and no array of them, and for an array
        of more than :data:`MOST_NUMBERS` numbers or more dimensions.
    """
    if isinstance(value, (list, tuple, dict, str, type(None))):
        return {}
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "biuf" or array.size > MOST_NUMBERS or array.ndim > dimensions:
        return {}
    return {place: float(number) for place, number in np.ndenumerate(array)}
