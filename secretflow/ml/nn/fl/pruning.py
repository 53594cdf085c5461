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

MASK_SCOPES = ("local", "global")
PRUNE_SCOPES = ("layer", "global")
PRUNE_SCHEDULES = ("geometric", "cubic")


@dataclass(frozen=True)
class PruneSettings:
    """What a user chooses about pruning. A step ends every epoch, and with ``prune_freq`` rounds within it.

    Attributes:
        prune_end_rate: living rate, over all layers, at which pruning stops, in (0, 1]; rounded down to whole
            weights. 1 prunes nothing.
        prune_percent: percent of the living weights that one step of the geometric schedule removes, in
            (0, 100), rounded down to whole weights; see :func:`removals`. The cubic one does not use it.
        mask_scope: "local": each party prunes its own weights before it uploads them and keeps its own mask.
            "global": all parties prune the averaged weights, so all come to the same mask without a word.
        prune_scope: "layer": each layer gives its share. "global": the smallest weights of all layers go
            first, so small layers of large weights are spared.
        prune_schedule: "geometric": a step removes ``prune_percent`` of what lives. "cubic": the living rate
            falls as a cubic from 1 to ``prune_end_rate``, fast at first (Zhu and Gupta 2017, section 3).
        prune_freq: rounds from one step to the next within an epoch, at least 1. The last round of an epoch
            always ends with one, also if this does not divide the epoch's rounds; None is no step but that.
            With the cubic schedule it sets how fine the curve's steps are, with the geometric one every step
            removes ``prune_percent``. With local masks, each step costs an agreement on the new ones.
        prune_start_epoch: epochs to train before pruning starts, at least 0; the first step comes after
            them.
        prune_end_epoch: epoch at whose end the cubic schedule reaches ``prune_end_rate``, above
            ``prune_start_epoch``; the epochs after it train what is left.
        regrow_percent: percent of the living weights, in [0, 100), that a step exchanges in each layer: it
            removes that many of the smallest more, and revives as many pruned ones, those of the largest
            gradient, at zero (Evci et al. 2020, section 3). Steps then go on to the last epoch. Only with
            ``mask_scope="local"``, since gradients are a party's own.
        withhold_percent: percent of what lives, in [0, 100), rounded to whole weights, that a party keeps to
            itself in a round: those trained parameters, of all layers together, that differ most from the
            average that the round began with (Chu et al. 2023, "PriPrune", arXiv 2310.19958). There it
            uploads that average, as if it had not trained them, so that the denominators of the average stay
            the same; it starts the next round with the differences on top of the new average. What is
            evaluated, saved as the model and exported is the average without them. It costs accuracy. 0
            withholds nothing.

    Raises:
        TypeError: a number is not a number.
        ValueError: a value is out of its range or unknown, or two do not go together.
    """

    prune_end_rate: float = 0.1
    prune_percent: float = 5.0
    mask_scope: str = "local"
    prune_scope: str = "layer"
    prune_schedule: str = "geometric"
    prune_freq: int | None = None
    prune_start_epoch: int = 0
    prune_end_epoch: int | None = None
    regrow_percent: float = 0.0
    withhold_percent: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prune_end_rate", "prune_percent", "regrow_percent", "withhold_percent"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name}={value!r} is not allowed: a number")
        if not 0 < self.prune_end_rate <= 1:
            raise ValueError(f"prune_end_rate={self.prune_end_rate!r} is not allowed: a rate in (0, 1]")
        if not 0 < self.prune_percent < 100:
            raise ValueError(f"prune_percent={self.prune_percent!r} is not allowed: a percent in (0, 100)")
        for name in ("regrow_percent", "withhold_percent"):
            if not 0 <= getattr(self, name) < 100:
                raise ValueError(f"{name}={getattr(self, name)!r} is not allowed: a percent in [0, 100)")
        allowed = {
            "mask_scope": MASK_SCOPES,
            "prune_scope": PRUNE_SCOPES,
            "prune_schedule": PRUNE_SCHEDULES,
        }
        for name, choices in allowed.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is not allowed: one of {choices}")
        if self.prune_freq is not None and (not _is_count(self.prune_freq) or self.prune_freq < 1):
            raise ValueError(f"prune_freq={self.prune_freq!r} is not allowed: an integer from 1 up, or None")
        if not _is_count(self.prune_start_epoch) or self.prune_start_epoch < 0:
            raise ValueError(
                f"prune_start_epoch={self.prune_start_epoch!r} is not allowed: an integer from 0 up"
            )
        cubic = self.prune_schedule == "cubic"
        end = self.prune_end_epoch
        if cubic and (end is None or not _is_count(end) or end <= self.prune_start_epoch):
            raise ValueError(
                f"prune_end_epoch={self.prune_end_epoch!r} is not allowed with prune_schedule='cubic': an "
                f"integer above prune_start_epoch={self.prune_start_epoch}"
            )
        if not cubic and self.prune_end_epoch is not None:
            raise ValueError(
                f"prune_end_epoch={self.prune_end_epoch!r} is not allowed with "
                f"prune_schedule={self.prune_schedule!r}: only with 'cubic'"
            )
        if self.regrow_percent and self.mask_scope == "global":
            raise ValueError(
                f"regrow_percent={self.regrow_percent!r} is not allowed with mask_scope='global': 0, "
                "since gradients are a party's own"
            )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the settings."""
        return tuple(field.name for field in fields(cls))

    def step_may_end(self, number: int, rounds: int) -> bool:
        """Whether a step of pruning may end a round.

        Args:
            number: of the round in its epoch, from 1.
            rounds: of the epoch.
        """
        return number == rounds or (self.prune_freq is not None and number % self.prune_freq == 0)

    def step_due(self, epoch: float, rate: float) -> bool:
        """Whether a step of pruning is due in a round that a step may end.

        Args:
            epoch: how many epochs have been trained when the round ends, the part of a begun one included.
            rate: the living rate so far.
        """
        return epoch > self.prune_start_epoch and (rate > self.prune_end_rate or self.regrow_percent > 0)

    def rate_after(self, epoch: float) -> float:
        """The lowest living rate that a step may reach, in (0, 1].

        Args:
            epoch: as for :meth:`step_due`; above ``prune_start_epoch``.
        """
        if self.prune_end_epoch is None:
            return self.prune_end_rate
        progress = (epoch - self.prune_start_epoch) / (self.prune_end_epoch - self.prune_start_epoch)
        return self.prune_end_rate + (1 - self.prune_end_rate) * (1 - min(1.0, progress)) ** 3


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
    """How many weights a step removes from each layer so that every layer comes to the same living rate.

    Args:
        living: how many weights of each layer live, each at least 1.
        sizes: how many weights each layer has.
        rate: the living rate to come to, in (0, 1]; in each layer rounded up to whole weights.
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


def pruned_masks(
    weights: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    settings: PruneSettings,
    epoch: float,
    gradients: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """One step of pruning.

    Args:
        weights: float array of each layer.
        masks: array of 0 and 1 of each layer, of the weight's shape, with at least one 1.
        settings: what the user chose.
        epoch: how many epochs have been trained, the part of a begun one included; above
            ``prune_start_epoch``.
        gradients: array of each layer, of the weight's shape; needed to regrow.

    Returns:
        The new masks, uint8. Every layer keeps at least one weight.

    Raises:
        ValueError: the shapes differ, a living weight or a gradient is not finite, or gradients are missing.
    """
    living = [int(np.count_nonzero(mask)) for mask in masks]
    kept = living_after_step(settings, [mask.size for mask in masks], living, epoch)
    if settings.prune_scope == "global":
        pruned = prune_over_layers(weights, masks, sum(kept))
    else:
        pruned = [
            prune_by_magnitude(weight, mask, count)
            for weight, mask, count in zip(weights, masks, kept, strict=True)
        ]
    if not settings.regrow_percent:
        return pruned
    if gradients is None:
        raise ValueError(f"regrow_percent={settings.regrow_percent!r} needs gradients, but there are none")
    return [
        exchange(weight, mask, gradient, settings.regrow_percent)
        for weight, mask, gradient in zip(weights, pruned, gradients, strict=True)
    ]


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


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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


def prune_over_layers(
    weights: Sequence[np.ndarray], masks: Sequence[np.ndarray], keep: int
) -> list[np.ndarray]:
    """Removes the smallest living weights of all layers together; the largest of each layer stays.

    Args:
        weights: float array of each layer.
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
    chosen = np.zeros(magnitudes.size, np.uint8)
    order = np.argsort(magnitudes, kind="stable")
    chosen[order[max(0, order.size - spared) :]] = 1
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
        weight: float array of any shape.
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
        raise ValueError(f"gradient has the shape {gradient.shape}, its mask {mask.shape}")
    if not np.isfinite(gradient).all():
        raise ValueError("a gradient is NaN or infinite, so it has no place among the others")
    living = int(np.count_nonzero(mask))
    count = min(math.floor(living * percent / 100), mask.size - living, living - 1)
    changed = prune_by_magnitude(weight, mask, living - count)
    dead = np.flatnonzero(changed == 0)
    largest = np.argsort(-np.abs(gradient.ravel()[dead]), kind="stable")[:count]
    changed.reshape(-1)[dead[largest]] = 1
    return changed
