"""Pruning by magnitude: settings, schedule and masks, as pure functions of numpy arrays.

A *mask* is a list with one entry for each array of two or more dimensions that a party uploads: an array
of 0 and 1 (uint8) of that array's shape, or None where the array is not prunable. The *living rate* is the
fraction of 1s in a mask; it starts at 1 and falls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

Mask = list[np.ndarray | None]

MASK_SCOPES = ("local",)


@dataclass(frozen=True)
class PruneSettings:
    """What a user chooses about pruning.

    Attributes:
        prune_end_rate: living rate, over all layers, at which pruning stops, in (0, 1]. 1 prunes nothing.
        prune_percent: percent of the living weights of each layer that one step removes, in (0, 100),
            rounded down to whole weights; see :func:`removals`.
        mask_scope: "local": each party prunes by its own weights and keeps its own mask.

    Raises:
        TypeError: a number is not a number.
        ValueError: a number is out of its range or the scope is unknown.
    """

    prune_end_rate: float = 0.1
    prune_percent: float = 5.0
    mask_scope: str = "local"

    def __post_init__(self) -> None:
        for name in ("prune_end_rate", "prune_percent"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name}={value!r} is not allowed: a number")
        if not 0 < self.prune_end_rate <= 1:
            raise ValueError(f"prune_end_rate={self.prune_end_rate!r} is not allowed: a rate in (0, 1]")
        if not 0 < self.prune_percent < 100:
            raise ValueError(f"prune_percent={self.prune_percent!r} is not allowed: a percent in (0, 100)")
        if self.mask_scope not in MASK_SCOPES:
            raise ValueError(f"mask_scope={self.mask_scope!r} is not allowed: one of {MASK_SCOPES}")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the settings."""
        return tuple(field.name for field in fields(cls))


def removals(living: Sequence[int], percent: float, floor: int) -> list[int]:
    """How many weights one step removes from each layer: ``percent`` of what lives, rounded down.

    Rounded down, a step never takes more than its percent, and a layer in which that is less than one
    weight is left as it is: its few weights cost next to nothing and matter most. (With 5 percent, a
    convolution of 27 weights stops at 19; taking one more, 6 percent of them, cost the small net of the
    experiments up to 1.7 points of accuracy until it had trained again.) Where it is less than one weight
    in every layer, the largest layer gives one, so that each step makes progress.

    Args:
        living: how many weights of each layer live, each at least 1.
        percent: percent of the living weights of a layer to remove, in (0, 100).
        floor: how many weights shall live at least, over all layers. The last step is trimmed, each layer
            in proportion, so that exactly so many live.

    Returns:
        The number for each layer; every layer keeps at least one weight.
    """
    wanted = [min(math.floor(count * percent / 100), count - 1) for count in living]
    if not any(wanted) and max(living) > 1:
        wanted[int(np.argmax(living))] = 1
    allowed = max(0, sum(living) - floor)
    if sum(wanted) <= allowed:
        return wanted
    cumulated = [math.floor(total * allowed / sum(wanted)) for total in np.cumsum(wanted).tolist()]
    return [upper - lower for lower, upper in zip([0, *cumulated[:-1]], cumulated, strict=True)]


def full_mask(arrays: Iterable[np.ndarray | None]) -> Mask:
    """A mask under which everything lives; None stays None."""
    return [None if array is None else np.ones(array.shape, np.uint8) for array in arrays]


def living_rate(mask: Mask) -> float:
    """Fraction of the prunable weights that live, in [0, 1].

    Raises:
        ValueError: the mask has no prunable weight.
    """
    entries = [entry for entry in mask if entry is not None]
    size = sum(entry.size for entry in entries)
    if not size:
        raise ValueError("a mask without a prunable weight has no living rate")
    return sum(int(np.count_nonzero(entry)) for entry in entries) / size


def prune_by_magnitude(weight: np.ndarray, mask: np.ndarray, keep: int) -> np.ndarray:
    """Removes the smallest living weights of a layer.

    Args:
        weight: float array of any shape; what the mask has pruned is not looked at.
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
        raise ValueError(f"mask has the shape {mask.shape}, its weight {weight.shape}: they must be the same")
    if keep < 1:
        raise ValueError(f"keep={keep} is not allowed: at least one weight of a layer lives")
    living = np.flatnonzero(mask)
    magnitudes = np.abs(weight.ravel()[living])
    if not np.isfinite(magnitudes).all():
        raise ValueError("a living weight is NaN or infinite, so it has no place among the others")
    pruned = (mask != 0).astype(np.uint8)
    doomed = max(0, living.size - keep)
    pruned.reshape(-1)[living[np.argsort(magnitudes, kind="stable")[:doomed]]] = 0
    return pruned
