"""Tensors of a model that share memory: the same parameter under two names, or a view of another."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.pruning import Mask


@dataclass(frozen=True, eq=False)
class View:
    """Where a tensor lies in another one's memory.

    Attributes:
        of: name of the other.
        positions: of the tensor's shape, its elements' flat positions in the other, int64; None if both have
            the same elements in the same order.
    """

    of: str
    positions: np.ndarray | None

    def seen(self, array: np.ndarray) -> np.ndarray:
        """An array of the other's shape, as this tensor would show it."""
        return array if self.positions is None else array.ravel()[self.positions]

    def summed(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Values of this tensor's elements, such as a gradient, at the places of the other's.

        Args:
            values: array of this tensor's shape.
            shape: the other's.
        """
        if self.positions is None:
            return values
        total = np.zeros(shape, values.dtype)
        np.add.at(total.reshape(-1), self.positions, values)
        return total


def views_of(tensors: Mapping[str, torch.Tensor], prunable: Collection[str]) -> dict[str, View]:
    """Finds the tensors that lie in the memory of prunable ones.

    Args:
        tensors: all of a model, the ``state_dict``; also without memory ("meta").
        prunable: names of those that may be pruned.

    Returns:
        By name those within the memory of a prunable one; of tensors with the same elements the first is
        not among them.

    Raises:
        ValueError: two overlap in a way that no mask of one is a mask of both.
    """
    by_storage: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            # Not its address: tensors without memory have none.
            by_storage.setdefault(tensor.untyped_storage()._cdata, []).append(name)
    views: dict[str, View] = {}
    for names in by_storage.values():
        if len(names) < 2:
            continue
        owners = sorted((n for n in names if n in prunable), key=lambda n: -tensors[n].numel())
        for owner in owners:
            if owner not in views:
                found = {n: _view(owner, n, tensors) for n in names if n != owner and n not in views}
                views.update({n: view for n, view in found.items() if view is not None})
    return views


def with_views(mask: Mask, views: Mapping[str, View]) -> Mask:
    """A mask with an entry for every tensor in the memory of a masked one, too.

    Args:
        mask: entries of the prunable parameters.
        views: of :func:`views_of`.
    """
    return {**mask, **{name: view.seen(mask[view.of]) for name, view in views.items()}}


def check_one_to_one(name: str, tensor: torch.Tensor) -> None:
    """Refuses a tensor of which two elements are one number in memory: they cannot be set one by one.

    Args:
        name: of the parameter.
        tensor: also without memory ("meta").

    Raises:
        ValueError: it overlaps itself.
    """
    if is_lazy(tensor):
        return  # it has no memory yet
    reach = 0
    for step, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and step <= reach and (step == 0 or np.unique(_places(tensor)).size < tensor.numel()):
            raise ArgumentError(
                f"{name} must have a number of its own for each element, got a parameter of shape "
                f"{tuple(tensor.shape)} and strides {tensor.stride()} that overlaps itself, as expand and "
                "unfold give one; make a copy of it with clone(), or compute it from a smaller parameter in "
                "forward"
            )
        reach += (size - 1) * step


def _view(owner: str, other: str, tensors: Mapping[str, torch.Tensor]) -> View | None:
    """Where a tensor lies in the memory of an owner; None if they have no element in common."""
    mine, its = tensors[owner], tensors[other]
    (low, high), (other_low, other_high) = _span(mine), _span(its)
    if high <= other_low or other_high <= low:
        return None
    if _geometry(mine) == _geometry(its):
        return View(owner, None)
    own_places, places = _places(mine), _places(its)
    flat = np.full(max(high, other_high), -1)
    flat[own_places.ravel()] = np.arange(mine.numel())
    positions = flat[places]
    if (positions < 0).all():
        return None
    one_to_one = np.unique(own_places).size == mine.numel()
    if its.dim() < 2 or (positions < 0).any() or not one_to_one or mine.dtype != its.dtype:
        raise ArgumentError(
            "model must share memory between whole weights of two or more dimensions, got "
            f"{other} {tuple(its.shape)}, which shares a part of {owner} {tuple(mine.shape)}, so no mask is "
            "right for both; make one of them a copy, or leave them out with prunable"
        )
    return View(owner, positions)


def _geometry(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset()


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """The elements of its storage between which a tensor lies, the last one excluded."""
    first = int(tensor.storage_offset())
    reach = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return first, first + int(reach) + 1


def _places(tensor: torch.Tensor) -> np.ndarray:
    """Of each element its number in the storage."""
    places = np.full((), int(tensor.storage_offset()), np.int64)
    for size, step in zip(tensor.shape, tensor.stride(), strict=True):
        places = places[..., None] + np.arange(size) * step
    return places
