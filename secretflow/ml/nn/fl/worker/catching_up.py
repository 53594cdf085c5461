"""What a party that comes in later takes from those who are there: average, mask and place in the plan."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypedDict

import numpy as np

from secretflow.ml.nn.fl.plan import PartyState, pruning_of_rounds
from secretflow.ml.nn.fl.pruning import Mask, PruneSettings
from secretflow.ml.nn.fl.worker.training import LocalTraining, PartyFit
from secretflow.security.aggregation.secagg.dropouts.last_average import LastAverage


class Given(TypedDict):
    """What one party gives those who have not got the last average. Nothing in it is that party's own.

    Attributes:
        average: the last one, whole where updates of it travelled; None where the first one was lost.
        mask: where all parties have one mask; else None.
        state: what the plan was made of.
        trained: epochs before the fit.
        epochs: of the fit.
        held: see :class:`~secretflow.security.aggregation.secagg.dropouts.wire.Hello`.
    """

    average: tuple[list[np.ndarray], list[bool]] | None
    mask: Mask | None
    state: PartyState
    trained: int
    epochs: int
    held: int


def given(
    training: LocalTraining,
    settings: PruneSettings,
    average: LastAverage | None,
    state: PartyState,
    fit: PartyFit,
    held: int,
) -> Given:
    """What a party gives others.

    Args:
        training: its training.
        settings: what the user chose about pruning.
        average: the last one that was opened.
        state: see :class:`Given`, as well as ``held``.
        fit: what the user chose for this fit.
        held: see above.
    """
    return Given(
        average=None if average is None else (average.arrays, average.whole),
        # Masks of the parties' own stay where they are.
        mask=training.masked.mask if settings.mask_scope == "global" else None,
        state=state,
        trained=fit.epochs_trained,
        epochs=fit.epochs,
        held=held,
    )


def fit_of(came: Given, own: PartyFit) -> PartyFit:
    """The fit of the others, of which the own one may be a later part."""
    return replace(own, epochs_trained=came["trained"], epochs=came["epochs"])


def take_average(training: LocalTraining, average: LastAverage, keeps_own: bool) -> None:
    """Takes up an average that others have made.

    Args:
        training: of the party.
        average: as the server has it.
        keeps_own: whether a number that did not travel stays the party's own; else it becomes 0.

    Raises:
        ValueError: it is not to be trained on, see :mod:`.incoming`; nothing was changed then.
    """
    training.check(average.arrays)  # or another shape would be stretched to the own one
    values = []
    for own, came, whole in zip(training.arrays(), average.arrays, average.whole, strict=True):
        rest = own if keeps_own else np.zeros_like(own)
        values.append(came.astype(own.dtype) if whole else np.where(came != 0, came, rest).astype(own.dtype))
    training.check(values)
    training.take(values)


def prune_like_others(
    training: LocalTraining, settings: PruneSettings, state: PartyState, fit: PartyFit, rounds: int
) -> None:
    """Takes those steps of pruning that the plan has behind it and the party has not made.

    Args:
        training: of the party.
        settings: what the user chose about pruning.
        state: what the plan was made of.
        fit: what the user chose for this fit.
        rounds: how many of the plan are over.
    """
    of_epoch = math.ceil(fit.steps / fit.aggregate_freq)
    epochs = range(fit.epochs_trained, fit.epochs_in_all)
    planned = pruning_of_rounds(settings, state["sizes"], state["living"], epochs, of_epoch)
    for _, this in zip(range(rounds), planned, strict=False):
        if this.prunes and sum(training.masked.counts()[1]) > sum(this.living):
            training.prune(settings.over(fit.epochs_in_all), this.passed)
