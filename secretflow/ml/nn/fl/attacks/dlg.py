"""Deep Leakage from Gradients: guess image and label until their gradient is the one that was seen.

Source: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019, section 3.2, algorithm 1. To use when the
batch is small, the activation smooth and the gradient exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from secretflow.ml.nn.fl.attacks.lbfgs import BatchedLBFGS, LBFGSSettings
from secretflow.ml.nn.fl.attacks.objective import Objective
from secretflow.ml.nn.fl.attacks.observation import Observation, Progress, Reconstruction
from secretflow.ml.nn.fl.attacks.restarts import START_STRIDE, SearchSettings, search


@dataclass(frozen=True)
class DLGSettings(SearchSettings):
    """How hard to try; a step is one of L-BFGS.

    Attributes:
        loss_reached: relative to the squared norm of the gradient that was seen; see
            :class:`~.restarts.SearchSettings`, also for the rest.
        lbfgs: how each step minimises.
    """

    lbfgs: LBFGSSettings = LBFGSSettings()  # noqa: RUF009 - frozen


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
        ValueError: the observations cannot be attacked together.
    """
    classes = observations[0].classes if observations else 0
    fixed = None if labels is None else torch.nn.functional.one_hot(labels, classes)
    objective = Objective(observations, labels=fixed)

    def labels_of(number: int, guess: torch.Tensor) -> torch.Tensor:
        scores = objective.split(guess)[1]
        return labels[number] if scores is None else scores.argmax(dim=-1)  # type: ignore[index]

    return search(
        objective,
        len(observations),
        lambda restart: normal_start(objective, settings.seed, restart),
        lambda start: BatchedLBFGS(start, settings.lbfgs),
        settings,
        (settings.loss_reached * objective.squared_norms).tolist(),
        labels_of,
        progress,
    )


def normal_start(objective: Objective, seed: int, restart: int) -> torch.Tensor:
    """Standard normal numbers; the same for all observations.

    Args:
        objective: what is minimised.
        seed: of the attack.
        restart: its number.

    Returns:
        First guess, (objective.size,).
    """
    generator = torch.Generator().manual_seed(seed + START_STRIDE * restart)
    return torch.randn(objective.size, generator=generator, dtype=objective.dtype)
