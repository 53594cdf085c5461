"""Inverting Gradients: match the direction of the gradient, and prefer smooth images in the range of pixels.

Source: Geiping, Bauermeister, Dröge, Moeller, "Inverting Gradients - How easy is it to break privacy in
federated learning?", NeurIPS 2020, section 4. To use when the length of the gradient says little (trained
nets, rectifiers, noise) or several local steps were taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.adam import BatchedSignedAdam, SignedAdamSettings
from secretflow.ml.nn.fl.attacks.dlg import one_hot_labels
from secretflow.ml.nn.fl.attacks.idlg import labels_or_a_guess
from secretflow.ml.nn.fl.attacks.objective import Objective, cosine_distance
from secretflow.ml.nn.fl.attacks.observation import (
    Observation,
    Progress,
    Reconstruction,
    check_observations,
)
from secretflow.ml.nn.fl.attacks.restarts import START_STRIDE, SearchSettings, search


@dataclass(frozen=True)
class InvertingSettings(SearchSettings):
    """How hard to try; a step is 20 moves of signed Adam.

    Attributes:
        iterations: see :class:`~.restarts.SearchSettings`, also for the rest. The step size falls along
            all of them, so this attack knows no patience unless it is asked for.
        loss_reached: absolute; the loss is at most 2 plus the total variation.
        tv_weight: weight of the total variation of images, at least 0; other rows have none.
        learning_rate: first step size, above 0; the default suits pixels in [0, 1].

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a number is out of its range.
    """

    iterations: int = 60
    restarts: int = 1
    loss_reached: float = 0.0
    patience: int = 10**9
    tv_weight: float = 1e-4
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _validate.number("tv_weight", self.tv_weight, at_least=0)
        _validate.number("learning_rate", self.learning_rate, above=0)


MOVES = 20
"""Moves of one step, as many as one of L-BFGS, so that steps of the attacks cost the same."""


def inverting_attack(
    observations: Sequence[Observation],
    settings: InvertingSettings = InvertingSettings(),
    progress: Progress | None = None,
    labels: torch.Tensor | None = None,
) -> list[Reconstruction]:
    """Reconstructs batches from their gradients, within the bounds of their rows.

    Args:
        observations: what the attacker has, one for each batch.
        settings: how hard to try.
        progress: called after each step.
        labels: int64 of shape (observations, batch) if the attacker knows them; None reads them off first.

    Returns:
        For each observation the reconstruction of the smallest matching loss; see
        :func:`~.restarts.search`.

    Raises:
        TypeError: something is not an observation, or not settings.
        ValueError: labels cannot be read off or are not theirs, or the observations cannot be attacked
            together.
    """
    check_observations(observations, progress)
    _validate.instance("settings", settings, InvertingSettings, "InvertingSettings")
    if labels is None:
        known = torch.stack([labels_or_a_guess(observation) for observation in observations])
    else:
        known = labels
    objective = Objective(
        observations, cosine_distance, one_hot_labels(known, observations), settings.tv_weight
    )
    lower, upper = observations[0].bounds
    adam = SignedAdamSettings(MOVES * settings.iterations, settings.learning_rate, lower, upper)

    def start(restart: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(settings.seed + START_STRIDE * restart)
        if math.isfinite(upper - lower):
            drawn = torch.rand(objective.size, generator=generator, dtype=objective.dtype)
            return lower + (upper - lower) * drawn
        return torch.randn(objective.size, generator=generator, dtype=objective.dtype).clamp(lower, upper)

    return search(
        objective,
        len(observations),
        start,
        lambda points: BatchedSignedAdam(points, adam, MOVES),
        settings,
        [settings.loss_reached] * len(observations),
        lambda number, _: known[number],
        progress,
    )
