"""The most probable row under a Gaussian of public rows: L-BFGS on its principal components.

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


@dataclass(frozen=True)
class PriorSettings(SearchSettings):
    """How hard to try; a step is one of L-BFGS.

    Attributes:
        iterations: see :class:`~.restarts.SearchSettings`, also for the rest.
        restarts: the first one starts at the mean row, others at rows drawn from the prior.
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
    """An objective as a function of the components of a row instead of its numbers, and with the prior in it.

    Args:
        objective: of one row, with its label fixed.
        prior: of rows.
    """

    def __init__(self, objective: Objective, prior: GaussianPrior) -> None:
        self.device, self.dtype = objective.device, objective.dtype
        self._objective = objective
        self._mean = prior.mean.to(self.device, self.dtype)
        self._basis = prior.basis.to(self.device, self.dtype)

    @property
    def size(self) -> int:
        """Numbers in one guess."""
        return self._basis.shape[1]

    def split(self, guess: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The row of a guess; its label is not guessed."""
        return self._objective.split(self._mean + self._basis @ guess)

    def bind(self, rows: Sequence[int]) -> Evaluate:
        """See :meth:`~.objective.Objective.bind`."""
        evaluate = self._objective.bind(rows)

        def on_components(guesses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            losses, gradients = evaluate(self._mean + guesses @ self._basis.T)
            return losses + guesses.square().sum(dim=1) / 2, gradients @ self._basis + guesses

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
    """Finds the most probable single rows.

    Args:
        observations: what the attacker has, of one row each.
        prior: of public rows; none of them may be attacked.
        settings: how hard to try.
        progress: called after each step.
        labels: int64 of shape (observations, 1) if the attacker knows them; None reads them off first.

    Returns:
        For each observation the reconstruction of the highest posterior; see :func:`~.restarts.search`.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: a batch holds more than one row, the prior is of other rows, labels cannot be read off, or
            the observations cannot be attacked together.
    """
    check_observations(observations, progress)
    _validate.instance("prior", prior, GaussianPrior, "a GaussianPrior")
    _validate.instance("settings", settings, PriorSettings, "PriorSettings")
    for observation in observations:
        _validate.check(observation.batch_size == 1, "batch_size", observation.batch_size, "1 for a prior")
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
        return drawn if restart else torch.zeros_like(drawn)

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
