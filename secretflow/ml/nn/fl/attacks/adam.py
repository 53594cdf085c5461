"""Adam on the signs of gradients inside a box, for many problems at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.lbfgs import Evaluate


@dataclass(frozen=True)
class SignedAdamSettings:
    """How to minimise.

    Source: Geiping et al., "Inverting Gradients", NeurIPS 2020, section 4 and appendix A: signed gradients,
    step size 0.1 that falls tenfold after 3/8, 5/8 and 7/8 of the steps, pixels kept in their range.

    Attributes:
        steps: moves of one run, at least 1; the step size falls along them.
        learning_rate: first step size, above 0.
        lower: least value of a coordinate, may be infinite.
        upper: largest value of a coordinate, above ``lower``, may be infinite.

    Raises:
        ValueError: a number is out of its range.
    """

    steps: int = 1000
    learning_rate: float = 0.1
    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        _validate.integer("steps", self.steps, 1)
        _validate.number("learning_rate", self.learning_rate, above=0)
        ordered = self.lower < self.upper
        _validate.check(ordered, "upper", self.upper, f"above lower, which is {self.lower!r}")


class BatchedSignedAdam:
    """Independent runs of signed Adam side by side; the moments are those of ``torch.optim.Adam``.

    Args:
        start: first points, float of shape (runs, size).
        settings: how to minimise.
        moves: of one step, at least 1.
    """

    _BETAS = (0.9, 0.999)
    _EPSILON = 1e-8
    _DROPS = (3 / 8, 5 / 8, 7 / 8)

    def __init__(self, start: torch.Tensor, settings: SignedAdamSettings, moves: int) -> None:
        self.points = start.clamp(settings.lower, settings.upper)
        self.losses = start.new_full(start.shape[:1], float("nan"))
        self.ended = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        self._settings, self._moves = settings, moves
        self._made = torch.zeros_like(self.losses)
        self._first, self._second = torch.zeros_like(start), torch.zeros_like(start)
        self._gradients = torch.zeros_like(start)

    def replace(self, runs: Sequence[int], start: torch.Tensor) -> None:
        """Starts some runs anew; see :meth:`~.lbfgs.BatchedLBFGS.replace`."""
        index = torch.tensor(runs, device=start.device)
        self.points[index] = start.clamp(self._settings.lower, self._settings.upper)
        for state in (self._first, self._second, self._made):
            state[index] = 0
        self.ended[index] = False

    def keep(self, runs: Sequence[int]) -> None:
        """Goes on with these runs only, in this order."""
        index = torch.tensor(runs, device=self.points.device)
        for name in ("points", "losses", "ended", "_made", "_first", "_second", "_gradients"):
            setattr(self, name, getattr(self, name)[index])

    def step(self, evaluate: Evaluate) -> None:
        """Makes some moves of each run; ``losses`` are then those of ``points``.

        Args:
            evaluate: from points to losses and gradients.
        """
        if bool((self._made == 0).any()):
            self.losses, self._gradients = evaluate(self.points)
        for _ in range(self._moves):
            self._one_move()
            self.losses, self._gradients = evaluate(self.points)
            self.ended |= ~(self.losses.isfinite() & self._gradients.isfinite().all(dim=1))
            self.ended |= self._made >= self._settings.steps

    def _one_move(self) -> None:
        sign = self._gradients.sign()
        first, second = self._BETAS
        self._made = self._made + 1
        self._first = first * self._first + (1 - first) * sign
        self._second = second * self._second + (1 - second) * sign.square()
        drops = torch.stack([self._made > self._settings.steps * part for part in self._DROPS]).sum(dim=0)
        rate = self._settings.learning_rate * 0.1**drops / (1 - first**self._made)
        scale = (self._second / (1 - second**self._made)[:, None]).sqrt() + self._EPSILON
        moved = self.points - rate[:, None] * self._first / scale
        moved = moved.clamp(self._settings.lower, self._settings.upper)
        self.points = torch.where(self.ended[:, None], self.points, moved)
