"""What a user gets who leaves settings of pruning out: named sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "shared": MappingProxyType(
            {
                "prune_percent": 5.0,
                "mask_scope": "global",
                "prune_scope": "global",
                "prune_schedule": "cubic-geometric",
                "prune_freq": None,
                "prune_criterion": "lamp",
                "step_power": 0.5,
            }
        ),
        "lottery": MappingProxyType(
            {
                "prune_percent": 5.0,
                "mask_scope": "local",
                "prune_scope": "layer",
                "prune_schedule": "geometric",
                "prune_freq": 0,
                "prune_criterion": "magnitude",
                "step_power": 0.0,
            }
        ),
    }
)
"""The settings of each preset by name.

"shared": one mask for all parties, of the average's largest weights, fast within the first epoch and
slowly until three quarters of a fit; what ``docs/results/sparse.md`` measures as "ours". "lottery": each
party's own mask, 5 percent of what lives at the end of each epoch; the first version's, after Li et al.,
"LotteryFL", SEC 2021.
"""


def preset_for(*, percent: bool, structure: bool, gradients: bool) -> str:
    """The preset of a user who names none.

    Args:
        percent: whether ``prune_percent`` is given, which "shared" has no use for.
        structure: whether whole units are pruned, which was measured with "lottery" only.
        gradients: whether pruning looks at gradients, which are a party's own.
    """
    return "lottery" if percent or structure or gradients else "shared"
