"""What a checkpoint may hold: values that are read back without running code that a file brings along.

``torch.load(weights_only=True)`` refuses everything else, so it is not written in the first place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from secretflow.errors import ArgumentError

_ARRAY = "numpy array"  # the only key of the dictionary that stands for one
_LEAVES = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    torch.Tensor,
    torch.nn.Parameter,
    torch.Size,
    torch.dtype,
    torch.device,
)


def as_plain(value: Any, name: str) -> Any:
    """A copy of a value in which NumPy's numbers are Python's and its arrays tensors.

    Args:
        value: tensors, numbers, text, None, NumPy's numbers and arrays, and lists, tuples, sets and
            dictionaries of them.
        name: where it is, for messages.

    Returns:
        The copy; tensors are not copied.

    Raises:
        ValueError: there is something else; the message says where.
    """
    kind = type(value)
    if isinstance(value, np.generic) and type(value.item()) in _LEAVES:  # a longdouble stays one
        return value.item()
    if kind is np.ndarray and (tensor := _tensor_of(value)) is not None:
        return {_ARRAY: tensor}
    if kind in (dict, OrderedDict):
        return _like(value, ((as_plain(k, name), as_plain(v, f"{name}[{k!r}]")) for k, v in value.items()))
    if kind in (list, tuple, set):
        return kind(as_plain(item, f"{name}[{k}]") for k, item in enumerate(value))
    if kind in _LEAVES:
        return value
    of = f" of {value.dtype}" if kind is np.ndarray else ""
    raise ArgumentError(
        f"{name} must be a tensor, number or text, or a list or dictionary of them, for a checkpoint to be "
        f"readable, got a {kind.__module__}.{kind.__qualname__}{of}; keep it out of what is saved, or give "
        "numbers as Python's"
    )


def from_plain(value: Any) -> Any:
    """What :func:`as_plain` was given, with Python's numbers for NumPy's.

    Args:
        value: as it was read.
    """
    if type(value) is dict and list(value) == [_ARRAY]:
        return value[_ARRAY].numpy(force=True)
    return _mapped(value, from_plain)


class Held:
    """An array that an optimiser keeps: torch would take it for a list of numbers when it loads a state.

    Attributes:
        array: the array.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


def held(value: Any) -> Any:
    """A copy of a state of an optimiser in which each array is :class:`Held`."""
    return Held(value) if isinstance(value, np.ndarray) else _mapped(value, held)


def released(value: Any) -> Any:
    """A copy of what :func:`held` gave, with the arrays."""
    return value.array if isinstance(value, Held) else _mapped(value, released)


def _tensor_of(array: np.ndarray) -> torch.Tensor | None:
    """A tensor of the same numbers; None where torch has none of that type."""
    try:
        return torch.from_numpy(array.copy())
    except (TypeError, ValueError):  # such as longdouble, text and another byte order
        return None


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    kind = type(value)
    if kind in (dict, OrderedDict):
        return _like(value, ((k, change(v)) for k, v in value.items()))
    return kind(change(item) for item in value) if kind in (list, tuple, set) else value


def _like(value: Any, items: Iterable[tuple[Any, Any]]) -> Any:
    new = type(value)(items)
    if hasattr(value, "_metadata"):  # the versions of a module's layers
        new._metadata = value._metadata
    return new
