"""Pruning: settings, schedule, scores and masks, as pure functions of numpy arrays.

A *mask* has for each prunable parameter, by its name in the ``state_dict``, an array of 0 and 1 (uint8) of
its shape. Parameters that share memory have one entry, under one of their names. The *density* is the
fraction of 1s in a mask; it starts at 1 and falls. To add a criterion, see :mod:`.scores`.
"""

from .masks import Mask, density, exchange, full_mask, prune_by_magnitude, prune_over_layers, pruned_masks
from .presets import PRESETS
from .schedule import living_after_step, removals, removals_to_rate
from .scores import CRITERIA
from .settings import MASK_SCOPES, PRUNE_SCHEDULES, PRUNE_SCOPES, PRUNE_STRUCTURES, Prunable, PruneSettings
from .structure import Structure, carried_mask, check_whole_units, living_units, pruned_units

__all__ = [
    "CRITERIA",
    "MASK_SCOPES",
    "PRESETS",
    "PRUNE_SCHEDULES",
    "PRUNE_SCOPES",
    "PRUNE_STRUCTURES",
    "Mask",
    "Prunable",
    "PruneSettings",
    "Structure",
    "carried_mask",
    "check_whole_units",
    "exchange",
    "full_mask",
    "living_after_step",
    "living_units",
    "density",
    "prune_by_magnitude",
    "prune_over_layers",
    "pruned_masks",
    "pruned_units",
    "removals",
    "removals_to_rate",
]
