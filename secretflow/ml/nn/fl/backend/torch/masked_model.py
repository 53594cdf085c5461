"""A torch model under a mask: pure steps of pruning, in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from secretflow.ml.nn.fl.backend.torch.prunable import prunable_parameters
from secretflow.ml.nn.fl.backend.torch.shared_memory import View, check_one_to_one, views_of, with_views
from secretflow.ml.nn.fl.pruning import (
    Mask,
    Prunable,
    PruneSettings,
    Structure,
    full_mask,
    pruned_masks,
    pruned_units,
)

_EXTRA_STATE = "_extra_state"  # the last part of a name in the state_dict


def prunable_shapes(model: nn.Module, choice: Prunable = None) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's prunable parameters by name; of those that share memory one is there.

    Args:
        model: the model; also without memory for its weights ("meta").
        choice: see :func:`~secretflow.ml.nn.fl.backend.torch.prunable.prunable_parameters`.

    Raises:
        ValueError: as of that function, a parameter overlaps itself, or two weights overlap so that no
            mask is right for both.
    """
    for name, parameter in model.named_parameters():
        check_one_to_one(name, parameter)
    chosen = prunable_parameters(model, choice)
    views = views_of(tensors_of(model), chosen)
    return {name: tuple(value.shape) for name, value in chosen.items() if name not in views}


def full_mask_of(model: nn.Module, choice: Prunable = None) -> Mask:
    """A mask of a model under which every weight lives.

    Args:
        model: as for :func:`prunable_shapes`.
        choice: as there.
    """
    return full_mask(prunable_shapes(model, choice))


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a model's ``state_dict``; writing into them does not disturb a graph of autograd.

    What a module's ``get_extra_state`` adds is not there: it may be a copy, or anything else.
    """
    return {
        name: value.data
        for name, value in model.state_dict().items()
        if isinstance(value, torch.Tensor) and name.rpartition(".")[2] != _EXTRA_STATE
    }


def views_in(model: nn.Module, mask: Mask) -> dict[str, View]:
    """The tensors of a model that lie in the memory of a masked weight, by name.

    Args:
        model: the model.
        mask: its mask.

    Raises:
        ValueError: the mask is not one of this model, or weights overlap so that no mask is right for both.
    """
    tensors = tensors_of(model)
    for name, entry in mask.items():
        shape = tuple(tensors[name].shape) if name in tensors else None
        if entry.shape != shape:
            raise ValueError(
                f"mask must be of this model, got an entry of shape {entry.shape} for {name}, whose shape is "
                f"{shape}"
            )
    return views_of(tensors, mask)


def masked_weights(model: nn.Module, mask: Mask) -> Iterator[tuple[str, torch.Tensor, np.ndarray]]:
    """Goes through the masked weights of a model, those in the memory of a prunable one included.

    Args:
        model: the model.
        mask: its mask.

    Yields:
        Name, weight (sharing memory with the model's) and mask entry.

    Raises:
        ValueError: as of :func:`views_in`.
    """
    tensors = tensors_of(model)
    for name, entry in with_views(mask, views_in(model, mask)).items():
        yield name, tensors[name], entry


def apply_mask(model: nn.Module, mask: Mask) -> None:
    """Sets every pruned weight of a model to zero, in place.

    Args:
        model: the model.
        mask: its mask.

    Raises:
        ValueError: the mask is not one of this model.
    """
    for _, weight, entry in masked_weights(model, mask):
        weight.mul_(entry_as_tensor(entry, weight))


def prune_model(
    model: nn.Module,
    mask: Mask,
    settings: PruneSettings,
    epoch: float,
    views: Mapping[str, View] | None = None,
    structure: Structure | None = None,
) -> Mask:
    """Takes one step of pruning; what it removes becomes zero, what it revives starts there.

    Args:
        model: the model, changed in place.
        mask: its mask.
        settings: what the user chose.
        epoch: how many epochs have been trained, the part of a begun one included.
        views: of :func:`views_in`, from when they were looked for; None looks now.
        structure: the units that may be removed; None removes single weights.

    Returns:
        The new mask.

    Raises:
        ValueError: a living weight is not finite, or a gradient that is needed is missing.
    """
    tensors = tensors_of(model)
    views = views_in(model, mask) if views is None else views
    gradients = _gradients(model, mask, views, settings) if settings.needs_gradients else None
    weights = {name: tensors[name].numpy(force=True) for name in mask}
    if structure is None:
        new = pruned_masks(weights, mask, settings, epoch, gradients)
    else:
        new = pruned_units(structure, weights, mask, settings, epoch, gradients)
    apply_mask(model, new)
    return new


def entry_as_tensor(entry: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """An entry of a mask as a tensor of a weight's dtype on its device."""
    # A copy: what comes out of Ray's object store is read-only, which torch cannot share.
    return torch.tensor(entry, dtype=like.dtype, device=like.device)


def _gradients(
    model: nn.Module, mask: Mask, views: Mapping[str, View], settings: PruneSettings
) -> dict[str, np.ndarray]:
    """The gradient of each prunable weight; of one that others are views of, all of theirs together."""
    found: dict[str, np.ndarray] = {}
    for name, parameter in model.named_parameters():  # each once, so that no gradient counts twice
        of = views[name].of if name in views else name
        if of not in mask or parameter.grad is None:
            continue
        gradient = parameter.grad.numpy(force=True)
        if name in views:
            gradient = views[name].summed(gradient, mask[of].shape)
        found[of] = found[of] + gradient if of in found else gradient
    if not mask.keys() <= found.keys():
        name = "regrow_percent" if settings.regrow_percent else "prune_criterion"
        raise ValueError(
            f"{name} must be left alone where a prunable weight has no gradient after the last batch of a "
            f"round, got {getattr(settings, name)!r}"
        )
    return found
