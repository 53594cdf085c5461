"""Deep Leakage from Gradients: guess image and label until their gradient is the one that was seen.

Source: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019, section 3.2, algorithm 1. To use when the
batch is small, the activation smooth and the gradient exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.lbfgs import BatchedLBFGS, LBFGSSettings
from secretflow.ml.nn.fl.attacks.objective import Objective
from secretflow.ml.nn.fl.attacks.observation import (
    Observation,
    Progress,
    Reconstruction,
    check_observations,
)
from secretflow.ml.nn.fl.attacks.restarts import START_STRIDE, SearchSettings, search


@dataclass(frozen=True)
class DLGSettings(SearchSettings):
    """How hard to try; a step is one of L-BFGS.

    Attributes:
        loss_reached: relative to the squared norm of the gradient that was seen; see
            :class:`~.restarts.SearchSettings`, also for the rest.
        lbfgs: how each step minimises.
        start_mean: of the random numbers of a start.
        start_deviation: their standard deviation, at least 0. The defaults are the paper's. Where weights are
            large, pixels far outside [0, 1] saturate the units behind them, and a narrow start around grey
            (0.5 and 0.1) finds the image from starts from which the paper's does not.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a number is out of its range.
    """

    lbfgs: LBFGSSettings = LBFGSSettings()  # noqa: RUF009 - frozen
    start_mean: float = 0.0
    start_deviation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _validate.instance("lbfgs", self.lbfgs, LBFGSSettings, "LBFGSSettings")
        _validate.number("start_mean", self.start_mean)
        _validate.number("start_deviation", self.start_deviation, at_least=0)


def dlg_attack(
    observations: Sequence[Observation],
    settings: DLGSettings = DLGSettings(),
    progress: Progress | None = None,
    labels: torch.Tensor | None = None,
) -> list[Reconstruction]:
    """Reconstructs batches from their gradients.

    Args:
        observations: what the attacker has, one for each batch.
        settings: how hard to try.
        progress: called after each step.
        labels: int64 of shape (observations, batch) if the attacker knows them; None guesses them too.

    Returns:
        For each observation the reconstruction of the smallest matching loss; see
        :func:`~.restarts.search`.

    Raises:
        TypeError: something is not an observation, or not settings.
        ValueError: the observations cannot be attacked together, or the labels are not theirs.
    """
    check_observations(observations, progress)
    _validate.instance("settings", settings, DLGSettings, "DLGSettings")
    fixed = None if labels is None else one_hot_labels(labels, observations)
    objective = Objective(observations, labels=fixed)

    def labels_of(number: int, guess: torch.Tensor) -> torch.Tensor:
        scores = objective.split(guess)[1]
        return labels[number] if scores is None else scores.argmax(dim=-1)  # type: ignore[index]

    return search(
        objective,
        len(observations),
        lambda restart: normal_start(objective, settings, restart),
        lambda start: BatchedLBFGS(start, settings.lbfgs),
        settings,
        (settings.loss_reached * objective.squared_norms).tolist(),
        labels_of,
        progress,
    )


def one_hot_labels(labels: torch.Tensor, observations: Sequence[Observation]) -> torch.Tensor:
    """Labels that an attacker knows, with a column for each class.

    Args:
        labels: int64 of shape (observations, batch).
        observations: whose labels they are.

    Raises:
        TypeError: they are no integers.
        ValueError: they are of another shape, or one is no class.
    """
    first = observations[0]
    shape = (len(observations), first.batch_size)
    integers = isinstance(labels, torch.Tensor) and labels.dtype == torch.int64
    _validate.check(integers, "labels", labels, "an int64 tensor", TypeError)
    _validate.check(labels.shape == shape, "labels", tuple(labels.shape), f"of shape {shape}")
    fit = bool(((labels >= 0) & (labels < first.classes)).all())
    _validate.check(fit, "labels", labels.tolist(), f"classes from 0 to {first.classes - 1}")
    return torch.nn.functional.one_hot(labels, first.classes)


def normal_start(objective: Objective, settings: DLGSettings, restart: int) -> torch.Tensor:
    """Normal numbers, pixels and scores of labels alike; the same for all observations.

    Args:
        objective: what is minimised.
        settings: of the attack, for mean, deviation and seed.
        restart: its number.

    Returns:
        First guess, (objective.size,).
    """
    generator = torch.Generator().manual_seed(settings.seed + START_STRIDE * restart)
    normal = torch.randn(objective.size, generator=generator, dtype=objective.dtype)
    return settings.start_mean + settings.start_deviation * normal
