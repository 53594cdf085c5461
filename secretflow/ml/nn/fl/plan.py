"""The plan of a fit: its epochs and rounds, made before the first of them.

How many weights live after each step of pruning follows from the settings and the sizes of the layers alone,
so the plan needs no value of a party: all drivers make the same one.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from secretflow.ml.nn.fl.pruning import PruneSettings, living_after_step


class PartyState(TypedDict):
    """What a plan needs to know of a party.

    Attributes:
        sizes: weights of each prunable layer.
        living: how many of each live; with ``prune_scope="global"`` only their sum is meant.
        rows_known: whether the party knows before an epoch how many rows each round trains on.
    """

    sizes: list[int]
    living: list[int]
    rows_known: bool


@dataclass(frozen=True)
class EpochEnd:
    """What stands between two epochs in :func:`plan_with_ends`.

    Attributes:
        number: of the epoch in its fit, from 0.
    """

    number: int


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
        ends_fit: whether it is the last of the fit.
        prunes: whether a step of pruning ends it.
    """

    epoch: int
    number: int
    in_all: int
    first_step: int
    steps: int
    passed: float
    ends_epoch: bool
    ends_fit: bool
    prunes: bool


def plan_epochs(
    settings: PruneSettings,
    sizes: Sequence[int],
    living: Sequence[int],
    *,
    trained: int,
    epochs: int,
    steps: int,
    aggregate_freq: int,
) -> Iterator[list[Round]]:
    """The rounds of each epoch of a fit.

    Args:
        settings: what the user chose about pruning.
        sizes: weights of each prunable layer.
        living: weights of each that live when the fit begins.
        trained: how many epochs have been trained before.
        epochs: how many to train.
        steps: batches of an epoch, at least 1.
        aggregate_freq: batches of a round; the last one of an epoch may have fewer.
    """
    rounds = math.ceil(steps / aggregate_freq)
    pruning = pruning_of_rounds(settings, sizes, living, range(trained, trained + epochs), rounds)
    for epoch in range(trained, trained + epochs):
        planned = []
        for number, first_step in enumerate(range(0, steps, aggregate_freq), start=1):
            pruned = next(pruning)
            planned.append(
                Round(
                    epoch=epoch,
                    number=number,
                    in_all=epoch * rounds + number,
                    first_step=first_step,
                    steps=min(aggregate_freq, steps - first_step),
                    passed=pruned.passed,
                    ends_epoch=number == rounds,
                    ends_fit=number == rounds and epoch + 1 == trained + epochs,
                    prunes=pruned.prunes,
                )
            )
        yield planned


def plan_with_ends(
    settings: PruneSettings,
    state: PartyState,
    *,
    trained: int,
    epochs: int,
    steps: int,
    aggregate_freq: int,
) -> list[Round | EpochEnd]:
    """All rounds of a fit, and behind those of each epoch its end.

    Args:
        settings: as for :func:`plan_epochs`, as well as those below.
        state: what the plan needs to know of the parties, which have come equally far.
        trained: see above.
        epochs: see above.
        steps: see above.
        aggregate_freq: see above.
    """
    planned = plan_epochs(
        settings,
        state["sizes"],
        state["living"],
        trained=trained,
        epochs=epochs,
        steps=steps,
        aggregate_freq=aggregate_freq,
    )
    plan: list[Round | EpochEnd] = []
    for number, rounds in enumerate(planned):
        plan += [*rounds, EpochEnd(number)]
    return plan


class PruningOfRound(NamedTuple):
    """What the settings say of a round: epochs passed at its end, whether it prunes, and what lives then."""

    passed: float
    prunes: bool
    living: list[int]


def pruning_of_rounds(
    settings: PruneSettings, sizes: Sequence[int], living: Sequence[int], epochs: range, rounds: int
) -> Iterator[PruningOfRound]:
    """Pruning of each round of a fit's epochs; arguments as for :func:`plan_epochs`."""
    settings, counts = settings.over(epochs.stop), list(living)
    for epoch in epochs:
        for number in range(1, rounds + 1):
            passed = epoch + number / rounds  # a whole number after the last round, also in floats
            prunes = settings.step_may_end(number, rounds) and settings.step_due(
                passed, sum(counts) / sum(sizes)
            )
            if prunes:
                counts = living_after_step(settings, sizes, counts, passed)
            yield PruningOfRound(passed, prunes, counts)


def warn_of_another_end(
    settings: PruneSettings,
    sizes: Sequence[int],
    living: Sequence[int],
    *,
    trained: int,
    epochs: int,
    rounds: int,
) -> None:
    """Warns of a fit that does not come to ``prune_end_rate``, and says where it ends.

    Args:
        settings: as for :func:`plan_epochs`.
        sizes: as there.
        living: as there.
        trained: as there.
        epochs: as there.
        rounds: of an epoch, at least 1.
    """
    settings = settings.over(trained + epochs)
    (last,) = deque(
        pruning_of_rounds(settings, sizes, living, range(trained, trained + epochs), rounds), maxlen=1
    )
    end = sum(last.living) / sum(sizes)
    # A density is rounded to whole weights, and each layer keeps one.
    if sum(sizes) * (end - settings.prune_end_rate) <= len(sizes):
        return
    if settings.prune_end_epoch is None:
        remedy = "more epochs, a larger prune_percent, or prune_freq for more steps, go further"
    else:
        remedy = f"prune_end_epoch={settings.prune_end_epoch} is when it would be there"
    warnings.warn(
        f"pruning ends at density {end:.3g} after {trained + epochs} epochs, above "
        f"prune_end_rate={settings.prune_end_rate:g}; {remedy}",
        stacklevel=2,
    )
