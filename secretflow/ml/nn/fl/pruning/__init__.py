"""Pruning: settings, schedule, scores and masks, as pure functions of numpy arrays.

A *mask* has for each prunable parameter, by its name in the ``state_dict``, an array of 0 and 1 (uint8) of
its shape. Parameters that share memory have one entry, under one of their names. The *density* is the
fraction of 1s in a mask; it starts at 1 and falls. To add a criterion, see :mod:`.scores`.
"""

from .masks import Mask, density, exchange, full_mask, prune_by_magnitude, prune_over_layers, pruned_masks
from .schedule import living_after_step, removals, removals_to_rate
from .scores import CRITERIA
from .settings import MASK_SCOPES, PRUNE_SCHEDULES, PRUNE_SCOPES, Prunable, PruneSettings

__all__ = [
    "CRITERIA",
    "MASK_SCOPES",
    "PRUNE_SCHEDULES",
    "PRUNE_SCOPES",
    "Mask",
    "Prunable",
    "PruneSettings",
    "exchange",
    "full_mask",
    "living_after_step",
    "density",
    "prune_by_magnitude",
    "prune_over_layers",
    "pruned_masks",
    "removals",
    "removals_to_rate",
]
