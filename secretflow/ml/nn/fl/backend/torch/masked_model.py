"""A torch model under a mask: pure steps of pruning, in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from secretflow.ml.nn.fl.pruning import Mask, PruneSettings, full_mask, pruned_masks

PRUNABLE_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag)


def prunable_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of linear, convolution and embedding layers by their name in the ``state_dict``.

    A weight that two layers share is there under both names.
    """
    return {
        f"{name}.weight" if name else "weight": layer.weight
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, PRUNABLE_LAYERS)
    }


def full_mask_of(model: nn.Module) -> Mask:
    """A mask of a model under which every weight lives."""
    prunable = prunable_weights(model)
    return full_mask(
        prunable[name].detach().numpy(force=True) if name in prunable else None
        for name, value in model.state_dict().items()
        if value.dim() >= 2
    )


def masked_weights(model: nn.Module, mask: Mask) -> Iterator[tuple[str, torch.Tensor, np.ndarray]]:
    """Goes through the prunable weights of a model.

    Args:
        model: the model.
        mask: one entry for each array of two or more dimensions in its ``state_dict``.

    Yields:
        Name, weight (sharing memory with the model's) and mask entry.

    Raises:
        ValueError: the mask is not one of this model.
    """
    matrices = {name: value for name, value in model.state_dict().items() if value.dim() >= 2}
    if len(mask) != len(matrices):
        raise ValueError(f"mask has {len(mask)} entries, but the model has {len(matrices)} weight arrays")
    for (name, weight), entry in zip(matrices.items(), mask, strict=True):
        if entry is None:
            continue
        if entry.shape != tuple(weight.shape):
            raise ValueError(f"mask of {name} has the shape {entry.shape}, the weight {tuple(weight.shape)}")
        yield name, weight, entry


def mask_model(model: nn.Module, mask: Mask, initial_state_dict: Mapping[str, Any] | None = None) -> None:
    """Sets every pruned weight of a model to zero, in place.

    Args:
        model: the model.
        mask: its mask.
        initial_state_dict: loaded first, if given.
    """
    if initial_state_dict is not None:
        model.load_state_dict(initial_state_dict)
    for _, weight, entry in masked_weights(model, mask):
        weight.mul_(entry_as_tensor(entry, weight))


def prune_model(model: nn.Module, mask: Mask, settings: PruneSettings, epoch: float) -> Mask:
    """Takes one step of pruning; what it removes becomes zero, what it revives starts there.

    Args:
        model: the model, changed in place.
        mask: its mask.
        settings: what the user chose.
        epoch: how many epochs have been trained, the part of a begun one included.

    Returns:
        The new mask.

    Raises:
        ValueError: a living weight is not finite, or a gradient that is needed is missing.
    """
    # Weights that two layers share are one layer here.
    layers = {weight.data_ptr(): (weight, entry) for _, weight, entry in masked_weights(model, mask)}
    gradients = None
    if settings.needs_gradients:
        by_weight = {p.data_ptr(): p.grad for p in model.parameters() if p.grad is not None}
        if not layers.keys() <= by_weight.keys():
            raise ValueError(
                f"regrow_percent={settings.regrow_percent!r} and "
                f"prune_criterion={settings.prune_criterion!r} "
                "need the gradient of every prunable weight, but after the last batch of the round some "
                "have none"
            )
        gradients = [by_weight[pointer].numpy(force=True) for pointer in layers]
    weights, entries = zip(*layers.values(), strict=True)
    new = pruned_masks([w.numpy(force=True) for w in weights], entries, settings, epoch, gradients)
    by_pointer = dict(zip(layers, new, strict=True))
    in_order = iter([by_pointer[weight.data_ptr()] for _, weight, _ in masked_weights(model, mask)])
    new_mask = [None if entry is None else next(in_order) for entry in mask]
    mask_model(model, new_mask)
    return new_mask


def prune_by_percentile(model: nn.Module, mask: Mask, percent: float, end_rate: float = 0.1) -> Mask:
    """Removes the smallest living weights of each layer and sets them to zero.

    Args:
        model: the model, changed in place.
        mask: its mask.
        percent: percent of the living weights of each layer to remove, in (0, 100); see
            :func:`~secretflow.ml.nn.fl.pruning.removals`.
        end_rate: living rate, over all layers, that is not fallen short of, in (0, 1].

    Returns:
        The new mask.
    """
    return prune_model(model, mask, PruneSettings(prune_percent=percent, prune_end_rate=end_rate), epoch=1)


def entry_as_tensor(entry: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """An entry of a mask as a tensor of a weight's dtype on its device."""
    # A copy: what comes out of Ray's object store is read-only, which torch cannot share.
    return torch.tensor(entry, dtype=like.dtype, device=like.device)
