"""Masks and steps of pruning, as pure functions of numpy arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .schedule import living_after_step
from .scores import scores
from .settings import PruneSettings

Mask = dict[str, np.ndarray]
"""For each prunable parameter by name an array of 0 and 1, uint8, of its shape."""


def full_mask(shapes: Mapping[str, tuple[int, ...]]) -> Mask:
    """A mask under which everything lives.

    Args:
        shapes: of each prunable parameter by name.
    """
    return {name: np.ones(shape, np.uint8) for name, shape in shapes.items()}


def density(mask: Mask) -> float:
    """Fraction of the prunable weights that live, in [0, 1].

    Raises:
        ValueError: the mask has no prunable weight.
    """
    size = sum(entry.size for entry in mask.values())
    if not size:
        raise ValueError("mask must have an entry for at least one prunable weight, got none")
    return sum(int(np.count_nonzero(entry)) for entry in mask.values()) / size


def pruned_masks(
    weights: Mapping[str, np.ndarray],
    mask: Mask,
    settings: PruneSettings,
    epoch: float,
    gradients: Mapping[str, np.ndarray] | None = None,
) -> Mask:
    """One step of pruning.

    Args:
        weights: float array of each layer by name.
        mask: of the same names and shapes, in each entry at least one 1.
        settings: what the user chose.
        epoch: how many epochs have been trained, the part of a begun one included; above
            ``prune_start_epoch``.
        gradients: of the same names and shapes; needed where ``settings.needs_gradients``.

    Returns:
        The new mask, uint8. Every layer keeps at least one weight.

    Raises:
        KeyError: a layer has no weight or no gradient.
        ValueError: the shapes differ, a living weight or a gradient is not finite, or gradients are missing.
    """
    masks = list(mask.values())
    slopes = None if gradients is None else [gradients[name] for name in mask]
    scored = scores(settings.prune_criterion, [weights[name] for name in mask], slopes)
    living = [int(np.count_nonzero(entry)) for entry in masks]
    kept = living_after_step(settings, [entry.size for entry in masks], living, epoch)
    if settings.prune_scope == "global":
        pruned = prune_over_layers(scored, masks, sum(kept))
    else:
        pruned = [
            prune_by_magnitude(score, entry, count)
            for score, entry, count in zip(scored, masks, kept, strict=True)
        ]
    if settings.regrow_percent:
        if slopes is None:
            raise ValueError(f"regrow_percent must be 0 without gradients, got {settings.regrow_percent!r}")
        pruned = [
            exchange(score, entry, slope, settings.regrow_percent)
            for score, entry, slope in zip(scored, pruned, slopes, strict=True)
        ]
    return dict(zip(mask, pruned, strict=True))


def prune_by_magnitude(weight: np.ndarray, mask: np.ndarray, keep: int) -> np.ndarray:
    """Removes the smallest living weights of a layer.

    Args:
        weight: float array of any shape, or its scores; what the mask has pruned is not looked at.
        mask: array of 0 and 1 of the same shape.
        keep: how many weights shall live afterwards, at least 1. If no more than that live already,
            the mask stays.

    Returns:
        The new mask, uint8; exactly ``min(keep, living)`` weights live. Of equal magnitudes the first in
        memory order go first.

    Raises:
        ValueError: the shapes differ, ``keep`` is smaller than 1 or a living weight is not finite.
    """
    if weight.shape != mask.shape:
        raise ValueError(f"mask must have its weight's shape {weight.shape}, got {mask.shape}")
    if keep < 1:
        raise ValueError(f"keep must be at least 1, for one weight of a layer lives, got {keep}")
    living = np.flatnonzero(mask)
    magnitudes = np.abs(weight.ravel()[living])
    if not np.isfinite(magnitudes).all():
        raise ValueError(
            "weight must be finite where it lives, and so must its score, got NaN or infinity, which has no "
            "place among the others"
        )
    pruned = (mask != 0).astype(np.uint8)
    doomed = max(0, living.size - keep)
    pruned.reshape(-1)[living[smallest(magnitudes, doomed)]] = 0
    return pruned


def prune_over_layers(
    weights: Sequence[np.ndarray], masks: Sequence[np.ndarray], keep: int
) -> list[np.ndarray]:
    """Removes the smallest living weights of all layers together; the largest of each layer stays.

    Args:
        weights: float array of each layer, or their scores.
        masks: array of 0 and 1 of each layer, of the weight's shape, with at least one 1.
        keep: how many weights shall live afterwards, over all layers.

    Returns:
        The new masks, uint8; exactly ``max(number of layers, min(keep, living))`` weights live. Of equal
        magnitudes the first in memory order of the first layer go first.

    Raises:
        ValueError: shapes differ or a living weight is not finite.
    """
    # What each layer may lose at most, so that sorting can begin.
    least = [prune_by_magnitude(weight, mask, 1) for weight, mask in zip(weights, masks, strict=True)]
    magnitudes = np.concatenate(
        [
            np.abs(weight.ravel()[np.flatnonzero((mask != 0) & (one == 0))])
            for weight, mask, one in zip(weights, masks, least, strict=True)
        ]
    )
    spared = max(0, keep - len(masks))
    chosen = np.ones(magnitudes.size, np.uint8)
    chosen[smallest(magnitudes, magnitudes.size - spared)] = 0
    pruned, start = [], 0
    for mask, one in zip(masks, least, strict=True):
        places = np.flatnonzero((mask != 0) & (one == 0))
        new = one.copy()
        new.reshape(-1)[places] = chosen[start : start + places.size]
        start += places.size
        pruned.append(new)
    return pruned


def exchange(weight: np.ndarray, mask: np.ndarray, gradient: np.ndarray, percent: float) -> np.ndarray:
    """Exchanges the smallest living weights of a layer for the pruned ones of the largest gradient.

    Source: Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020, section 3.

    Args:
        weight: float array of any shape, or its scores.
        mask: array of 0 and 1 of the same shape, with at least one 1.
        gradient: array of the same shape, that of the dense weight.
        percent: percent of the living weights to exchange, in [0, 100), rounded down; at most as many as
            are pruned.

    Returns:
        The new mask, uint8; as many weights live as before. A weight that was just removed may come back.

    Raises:
        ValueError: the shapes differ, or a living weight or a gradient is not finite.
    """
    if gradient.shape != mask.shape:
        raise ValueError(f"gradient must have its mask's shape {mask.shape}, got {gradient.shape}")
    if not np.isfinite(gradient).all():
        raise ValueError("gradient must be finite, got NaN or infinity, which has no place among the others")
    living = int(np.count_nonzero(mask))
    count = min(math.floor(living * percent / 100), mask.size - living, living - 1)
    changed = prune_by_magnitude(weight, mask, living - count)
    dead = np.flatnonzero(changed == 0)
    largest = smallest(-np.abs(gradient.ravel()[dead]), count)
    changed.reshape(-1)[dead[largest]] = 1
    return changed


def smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the smallest numbers, without sorting them: a step of pruning takes few of many.

    Args:
        values: one-dimensional, without NaN.
        count: how many; none if it is below 1, all if there are no more.

    Returns:
        The positions, in no order. Of equal numbers the first are taken.
    """
    if count < 1:
        return np.empty(0, np.int64)
    if count >= values.size:
        return np.arange(values.size)
    edge = np.partition(values, count - 1)[count - 1]
    below = np.flatnonzero(values < edge)
    return np.concatenate([below, np.flatnonzero(values == edge)[: count - below.size]])
