"""Pruning: settings, schedule, scores and masks, as pure functions of numpy arrays.

A *mask* is a list with one entry for each array of two or more dimensions that a party uploads: an array
of 0 and 1 (uint8) of that array's shape, or None where the array is not prunable. The *living rate* is the
fraction of 1s in a mask; it starts at 1 and falls. To add a criterion, see :mod:`.scores`.
"""

from .masks import Mask, exchange, full_mask, living_rate, prune_by_magnitude, prune_over_layers, pruned_masks
from .schedule import living_after_step, removals, removals_to_rate
from .scores import CRITERIA
from .settings import MASK_SCOPES, PRUNE_SCHEDULES, PRUNE_SCOPES, PruneSettings

__all__ = [
    "CRITERIA",
    "MASK_SCOPES",
    "PRUNE_SCHEDULES",
    "PRUNE_SCOPES",
    "Mask",
    "PruneSettings",
    "exchange",
    "full_mask",
    "living_after_step",
    "living_rate",
    "prune_by_magnitude",
    "prune_over_layers",
    "pruned_masks",
    "removals",
    "removals_to_rate",
]
