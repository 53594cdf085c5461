"""How many weights a step of pruning removes: arithmetic on sizes, whatever the weights are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .settings import PruneSettings


def removals(living: Sequence[int], percent: float, floor: int) -> list[int]:
    """How many weights one geometric step removes from each layer: ``percent``, rounded down.

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
    return _trimmed(wanted, sum(living) - floor)


def removals_to_rate(living: Sequence[int], sizes: Sequence[int], rate: float, floor: int) -> list[int]:
    """How many weights a step removes from each layer so that every layer comes to the same density.

    Args:
        living: how many weights of each layer live, each at least 1.
        sizes: how many weights each layer has.
        rate: the density to come to, in (0, 1]; in each layer rounded up to whole weights.
        floor: as for :func:`removals`. What rounding leaves too many is taken from the largest layer.

    Returns:
        The number for each layer; every layer keeps at least one weight.
    """
    wanted = [
        max(0, count - max(1, math.ceil(_whole(rate * size))))
        for count, size in zip(living, sizes, strict=True)
    ]
    allowed = sum(living) - floor
    largest = int(np.argmax(living))
    wanted[largest] = min(
        living[largest] - 1, wanted[largest] + max(0, min(allowed - sum(wanted), len(sizes)))
    )
    return _trimmed(wanted, allowed)


def living_after_step(
    settings: PruneSettings, sizes: Sequence[int], living: Sequence[int], epoch: float
) -> list[int]:
    """How many weights live after a step of pruning, whatever the weights are.

    Args:
        settings: what the user chose.
        sizes: weights of each layer.
        living: how many of each live, each at least 1.
        epoch: how many epochs have been trained, the part of a begun one included; above
            ``prune_start_epoch``.

    Returns:
        The number for each layer, each at least 1. With ``prune_scope="global"`` only their sum follows from
        sizes; how it is shared out among the layers is not meant.
    """
    rate, total = settings.rate_after(epoch), sum(living)
    # Below the floor are only masks of few weights, each layer of which keeps one.
    floor = min(total, math.floor(_whole(rate * sum(sizes))))
    geometric = settings.prune_schedule == "geometric"
    if settings.prune_scope == "global":
        removed = max(1, math.floor(total * (settings.prune_percent / 100 if geometric else 1.0)))
        others = [1] * (len(sizes) - 1)
        return [max(1, max(floor, total - removed) - len(others)), *others]
    removals_of_layers = (
        removals(living, settings.prune_percent, floor)
        if geometric
        else removals_to_rate(living, sizes, rate, floor)
    )
    return [count - removed for count, removed in zip(living, removals_of_layers, strict=True)]


def _trimmed(wanted: list[int], allowed: int) -> list[int]:
    """Takes as many as wanted, or each layer's part of what is allowed."""
    if sum(wanted) <= allowed:
        return wanted
    cumulated = [math.floor(total * max(0, allowed) / sum(wanted)) for total in np.cumsum(wanted).tolist()]
    return [upper - lower for lower, upper in zip([0, *cumulated[:-1]], cumulated, strict=True)]


def _whole(number: float) -> float:
    """The number, or the integer that it differs from by float rounding only: 100 * 0.29 is 29."""
    return round(number) if math.isclose(number, round(number), rel_tol=1e-12) else number
