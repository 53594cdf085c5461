"""The rounds of an epoch, and which of them a step of pruning may end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from secretflow.ml.nn.fl.pruning import PruneSettings


@dataclass(frozen=True)
class Round:
    """One round of training: some steps, then an average.

    Attributes:
        epoch: how many epochs have been trained before it.
        number: in its epoch, from 1.
        in_all: number among all rounds, from 1, if epochs have had as many as this one.
        first_step: number of its first step in the epoch, from 0.
        steps: batches that each party trains on.
        passed: how many epochs have been trained when it ends, the part of a begun one included.
        ends_epoch: whether it is the last of its epoch.
        may_prune: whether a step of pruning may end it.
    """

    epoch: int
    number: int
    in_all: int
    first_step: int
    steps: int
    passed: float
    ends_epoch: bool
    may_prune: bool


def rounds_of_epoch(epoch: int, steps: int, aggregate_freq: int, settings: PruneSettings) -> list[Round]:
    """The rounds of an epoch.

    Args:
        epoch: how many epochs have been trained before.
        steps: batches of the epoch, at least 1.
        aggregate_freq: batches of a round; the last one may have fewer.
        settings: say which rounds a step of pruning may end.
    """
    rounds = math.ceil(steps / aggregate_freq)
    return [
        Round(
            epoch=epoch,
            number=number,
            in_all=epoch * rounds + number,
            first_step=first_step,
            steps=min(aggregate_freq, steps - first_step),
            passed=epoch + number / rounds,  # a whole number after the last round, also in floats
            ends_epoch=number == rounds,
            may_prune=settings.step_may_end(number, rounds),
        )
        for number, first_step in enumerate(range(0, steps, aggregate_freq), start=1)
    ]


def rounds_before_pruning(
    rounds: Sequence[Round], living_rates: Sequence[float], settings: PruneSettings
) -> int:
    """How many of the next rounds come before one that a step of pruning ends.

    Args:
        rounds: those to come in the epoch.
        living_rates: the parties' so far.
        settings: what the user chose about pruning.
    """
    for count, this in enumerate(rounds):
        if is_due(this, living_rates, settings):
            return count
    return len(rounds)


def is_due(this: Round, living_rates: Sequence[float], settings: PruneSettings) -> bool:
    """Whether a step of pruning ends a round, at any of the parties.

    Args:
        this: the round.
        living_rates: the parties' so far.
        settings: what the user chose about pruning.
    """
    return this.may_prune and any(settings.step_due(this.passed, rate) for rate in living_rates)
