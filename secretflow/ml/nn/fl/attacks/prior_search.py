"""The most probable rows under a Gaussian of public rows: L-BFGS on their principal components.

Where few coordinates live, many rows have the gradient that was seen; the prior says which of them is one.
And where the gradient is rounded, it says how much of the mismatch is rounding. Needs public rows, no
training.

Source: Balunović, Dimitrov, Staab, Vechev, "Bayesian framework for gradient leakage", ICLR 2022, section 3:
an attack maximises the likelihood of the gradient times the prior of the row. Here both are Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.dlg import one_hot_labels
from secretflow.ml.nn.fl.attacks.gaussian import GaussianPrior
from secretflow.ml.nn.fl.attacks.idlg import labels_or_a_guess
from secretflow.ml.nn.fl.attacks.lbfgs import BatchedLBFGS, Evaluate, LBFGSSettings
from secretflow.ml.nn.fl.attacks.objective import Arrays, Objective
from secretflow.ml.nn.fl.attacks.observation import (
    Observation,
    Progress,
    Reconstruction,
    check_observations,
)
from secretflow.ml.nn.fl.attacks.restarts import START_STRIDE, SearchSettings, search

_APART = 0.1
"""Deviations from the mean at which rows of a batch start, for equal ones of one label would stay equal."""


@dataclass(frozen=True)
class PriorSettings(SearchSettings):
    """How hard to try; a step is one of L-BFGS.

    Attributes:
        iterations: see :class:`~.restarts.SearchSettings`, also for the rest.
        restarts: the first one starts at the mean row, or in a batch near it, others at rows drawn from the
            prior.
        loss_reached: of minus the logarithm of the posterior, less its constant; 0 only ends at the optimum.
        noise: deviation of what is added to or rounded off a coordinate, relative to the largest coordinate
            of its array, above 0. The default stands for an exact gradient: it makes the match count far more
            than the prior where a coordinate decides, and the prior decide alone where none does.
        lbfgs: how each step minimises.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a number is out of its range.
    """

    iterations: int = 40
    restarts: int = 1
    loss_reached: float = 0.0
    patience: int = 5
    noise: float = 1e-4
    lbfgs: LBFGSSettings = LBFGSSettings(tolerance_grad=1e-5, tolerance_change=1e-9)  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        super().__post_init__()
        _validate.number("noise", self.noise, above=0)
        _validate.instance("lbfgs", self.lbfgs, LBFGSSettings, "LBFGSSettings")


class _OnComponents:
    """An objective as a function of the components of rows instead of their numbers, with the prior in it.

    Args:
        objective: of a batch, with its labels fixed.
        prior: of rows.
    """

    def __init__(self, objective: Objective, prior: GaussianPrior) -> None:
        self.device, self.dtype = objective.device, objective.dtype
        self._objective, self._rows = objective, objective.image_shape[0]
        self._mean = prior.mean.to(self.device, self.dtype)
        self._basis = prior.basis.to(self.device, self.dtype)

    @property
    def size(self) -> int:
        """Numbers in one guess."""
        return self._rows * self._basis.shape[1]

    def split(self, guess: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The rows of a guess; their labels are not guessed."""
        return self._objective.split(self._numbers(guess[None])[0])

    def _numbers(self, guesses: torch.Tensor) -> torch.Tensor:
        components = guesses.view(len(guesses), self._rows, -1)
        return (self._mean + components @ self._basis.T).flatten(1)

    def bind(self, rows: Sequence[int]) -> Evaluate:
        """See :meth:`~.objective.Objective.bind`."""
        evaluate = self._objective.bind(rows)

        def on_components(guesses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            losses, gradients = evaluate(self._numbers(guesses))
            of_rows = gradients.view(len(guesses), self._rows, -1) @ self._basis
            return losses + guesses.square().sum(dim=1) / 2, of_rows.flatten(1) + guesses

        return on_components


def likelihood_distance(noise: float) -> Callable[[Arrays, Arrays], torch.Tensor]:
    """Minus the log-likelihood, less a constant, of a gradient whose coordinates carry Gaussian noise.

    Args:
        noise: its deviation relative to the largest coordinate of an array, above 0.

    Returns:
        A function from the arrays of a guess and those that were seen to a scalar of at least 0.
    """

    def distance(guess: Arrays, seen: Arrays) -> torch.Tensor:
        parts = []
        for a, b in zip(guess, seen, strict=True):
            # An array without a coordinate that counts is zero on both sides.
            deviation = noise * b.abs().amax().clamp(min=torch.finfo(b.dtype).tiny ** 0.25)
            parts.append(((a - b) / deviation).square().sum())
        return torch.stack(parts).sum() / 2

    return distance


def prior_attack(
    observations: Sequence[Observation],
    prior: GaussianPrior,
    settings: PriorSettings = PriorSettings(),
    progress: Progress | None = None,
    labels: torch.Tensor | None = None,
) -> list[Reconstruction]:
    """Finds the most probable rows.

    Args:
        observations: what the attacker has, of as many rows each.
        prior: of public rows; none of them may be attacked.
        settings: how hard to try.
        progress: called after each step.
        labels: int64 of shape (observations, batch) if the attacker knows them; None reads them off first.

    Returns:
        For each observation the reconstruction of the highest posterior; see :func:`~.restarts.search`.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: the prior is of other rows, labels cannot be read off, or the observations cannot be
            attacked together.
    """
    check_observations(observations, progress)
    _validate.instance("prior", prior, GaussianPrior, "a GaussianPrior")
    _validate.instance("settings", settings, PriorSettings, "PriorSettings")
    numbers = torch.Size(observations[0].image_shape).numel()
    _validate.check(len(prior.mean) == numbers, "prior", len(prior.mean), f"of rows of {numbers} numbers")
    known = labels
    if known is None:
        known = torch.stack([labels_or_a_guess(observation) for observation in observations])
    objective = _OnComponents(
        Objective(observations, likelihood_distance(settings.noise), one_hot_labels(known, observations)),
        prior,
    )

    def start(restart: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(settings.seed + START_STRIDE * restart)
        drawn = torch.randn(objective.size, generator=generator, dtype=objective.dtype)
        near = 0.0 if observations[0].batch_size == 1 else _APART
        return drawn if restart else near * drawn

    return search(
        objective,
        len(observations),
        start,
        lambda points: BatchedLBFGS(points, settings.lbfgs),
        settings,
        [settings.loss_reached] * len(observations),
        lambda number, _: known[number],
        progress,
    )
