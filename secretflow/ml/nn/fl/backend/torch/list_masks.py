"""Masks as lists, as users and the aggregator hold them; inside they are dictionaries by name.

Such a list has one entry for each array of two or more dimensions in the ``state_dict``, in its order: an
array of 0 and 1 of that array's shape, or None where the array is not prunable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from secretflow.ml.nn.fl.backend.torch.masked_model import (
    apply_mask,
    full_mask_of,
    prune_model,
    tensors_of,
    views_in,
)
from secretflow.ml.nn.fl.backend.torch.shared_memory import views_of, with_views
from secretflow.ml.nn.fl.pruning import Mask, Prunable, PruneSettings

ListMask: TypeAlias = "list[np.ndarray | None]"


def as_list(tensors: Mapping[str, torch.Tensor], mask: Mask) -> ListMask:
    """A mask as a list.

    Args:
        tensors: arrays of a model by name, all of its ``state_dict`` or a part.
        mask: the model's, with an entry also for those that share memory with a masked one, see
            :func:`~secretflow.ml.nn.fl.backend.torch.shared_memory.with_views`.
    """
    return [mask.get(name) for name, value in tensors.items() if value.dim() >= 2]


def full_list_mask(model: nn.Module, choice: Prunable = None) -> ListMask:
    """The mask of a model under which every weight lives.

    Args:
        model: the model.
        choice: see :func:`~secretflow.ml.nn.fl.backend.torch.prunable.prunable_parameters`.
    """
    mask = full_mask_of(model, choice)
    return as_list(tensors_of(model), with_views(mask, views_in(model, mask)))


def from_list(model: nn.Module, entries: Sequence[np.ndarray | None]) -> Mask:
    """A mask from a list.

    Args:
        model: the model that it is of.
        entries: the list.

    Raises:
        ValueError: the list is not one of this model, or arrays that share memory have different entries.
    """
    tensors = tensors_of(model)
    matrices = {name: value for name, value in tensors.items() if value.dim() >= 2}
    if len(entries) != len(matrices):
        raise ValueError(
            f"mask must have {len(matrices)} entries, one for each array of two or more dimensions, got "
            f"{len(entries)}"
        )
    given = {n: np.asarray(entry) for n, entry in zip(matrices, entries, strict=True) if entry is not None}
    for name, entry in given.items():
        if entry.shape != tuple(matrices[name].shape):
            raise ValueError(
                f"mask of {name} must have the shape {tuple(matrices[name].shape)}, got {entry.shape}"
            )
    views = views_of(tensors, given)
    mask = {name: entry for name, entry in given.items() if name not in views}
    for name, entry in with_views(mask, views).items():
        if name in given and not np.array_equal(entry, given[name]):
            raise ValueError(
                f"mask of {name} must be that of {views[name].of}, with which it shares memory, got another"
            )
    return mask


def mask_model(
    model: nn.Module, mask: Sequence[np.ndarray | None], initial_state_dict: Mapping[str, Any] | None = None
) -> None:
    """Sets every pruned weight of a model to zero, in place.

    Args:
        model: the model.
        mask: its mask, as a list.
        initial_state_dict: loaded first, if given.
    """
    if initial_state_dict is not None:
        model.load_state_dict(initial_state_dict)
    apply_mask(model, from_list(model, mask))


def prune_by_percentile(
    model: nn.Module, mask: Sequence[np.ndarray | None], percent: float, end_rate: float = 0.1
) -> ListMask:
    """Removes the smallest living weights of each layer and sets them to zero.

    Args:
        model: the model, changed in place.
        mask: its mask, as a list.
        percent: percent of the living weights of each layer to remove, in (0, 100); see
            :func:`~secretflow.ml.nn.fl.pruning.removals`.
        end_rate: density, over all layers, that is not fallen short of, in (0, 1].

    Returns:
        The new mask, as a list.
    """
    settings = PruneSettings(prune_percent=percent, prune_end_rate=end_rate)
    by_name = from_list(model, mask)
    views = views_in(model, by_name)
    new = prune_model(model, by_name, settings, epoch=1, views=views)
    return as_list(tensors_of(model), with_views(new, views))
