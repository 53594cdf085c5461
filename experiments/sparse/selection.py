"""Which weights live: the selections of :mod:`secretflow.ml.nn.fl.pruning`, as torch operations.

Each agrees with its namesake there to the last element, ties included; the harness needs them because it
prunes hundreds of models where their weights are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def keep_largest(scores: Tensor, mask: Tensor, keep: int) -> Tensor:
    """Keeps the largest living entries of each row.

    Args:
        scores: float of shape (rows, size), at least 0; what the mask has pruned is not looked at.
        mask: boolean of the same shape.
        keep: how many entries of a row shall live at most.

    Returns:
        The new mask, boolean. Of equal scores the first in memory order go first.
    """
    return _without_smallest(torch.where(mask, scores, -1.0), mask, keep)


def keep_largest_over_layers(scores: Sequence[Tensor], masks: Sequence[Tensor], keep: int) -> list[Tensor]:
    """Keeps the largest living entries of all layers together; the largest of each layer stays.

    Args:
        scores: of each layer, float of shape (rows, size of the layer), at least 0.
        masks: of each layer, boolean of the same shape, at least one entry of each row true.
        keep: how many entries shall live over all layers, at most; at least one of each layer does.

    Returns:
        The new masks, boolean.
    """
    ranked = []
    for score, mask in zip(scores, masks, strict=True):
        one = _without_smallest(torch.where(mask, score, -1.0), mask, 1)
        ranked.append(torch.where(one, torch.inf, torch.where(mask, score, -1.0)))
    together = torch.cat(list(masks), 1)
    new = _without_smallest(torch.cat(ranked, 1), together, max(keep, len(masks)))
    return list(new.split([mask.shape[1] for mask in masks], 1))


def lamp(weights: Tensor) -> Tensor:
    """Scores of a layer of each row: see :func:`secretflow.ml.nn.fl.pruning.scores.lamp`.

    Args:
        weights: float of shape (rows, size).
    """
    ordered, order = weights.double().square().sort(dim=1, stable=True)
    not_below = ordered.flip(1).cumsum(1).flip(1)
    found = ordered / not_below.clamp_min(torch.finfo(torch.float64).tiny)
    return torch.empty_like(found).scatter_(1, order, found)


def _without_smallest(ranked: Tensor, mask: Tensor, keep: int) -> Tensor:
    """A row's mask without its smallest living entries; pruned ones are ranked below all others."""
    order = ranked.argsort(dim=1, stable=True)
    new = torch.zeros_like(mask)
    new.scatter_(1, order[:, max(0, mask.shape[1] - keep) :], True)
    return new & mask


def grow_largest(signal: Tensor, mask: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Revives the pruned candidates of the largest signal.

    Args:
        signal: float of shape (size,), at least 0.
        mask: boolean of the same shape.
        candidates: boolean of the same shape, which entries may be revived.
        count: how many to revive, at most.

    Returns:
        The new mask, boolean.
    """
    free = candidates & ~mask
    count = min(count, int(free.sum()))
    new = mask.clone()
    new[torch.where(free, signal, -1.0).topk(count).indices] = True
    return new
