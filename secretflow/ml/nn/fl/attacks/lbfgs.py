"""L-BFGS for many small problems at once, each with its own history, step and end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from secretflow import _validate

Evaluate = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class LBFGSSettings:
    """How to minimise; the numbers are those of ``torch.optim.LBFGS``.

    Attributes:
        evaluations: moves of one step, at least 1.
        history: pairs of moves and changes of the gradient to remember, at least 1.
        learning_rate: factor of each move, above 0. There is no line search.
        tolerance_grad: a problem whose gradient has no larger entry is at its end, at least 0.
        tolerance_change: a problem that cannot descend at a steeper rate is at its end, at least 0.

    Raises:
        ValueError: a number is out of its range.
    """

    evaluations: int = 20
    history: int = 100
    learning_rate: float = 1.0
    tolerance_grad: float = 1e-7
    tolerance_change: float = 1e-9

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        for name in ("evaluations", "history"):
            _validate.integer(name, getattr(self, name), 1)
        _validate.number("learning_rate", self.learning_rate, above=0)
        for name in ("tolerance_grad", "tolerance_change"):
            _validate.number(name, getattr(self, name), at_least=0)


class BatchedLBFGS:
    """Independent runs of L-BFGS side by side.

    The recursion is the two-loop one of Nocedal, "Updating quasi-Newton matrices with limited storage",
    Mathematics of Computation 35 (1980); first move, curvature test and ends are those of
    ``torch.optim.LBFGS``. All runs write a move into the same place of their histories, and a run that has
    none to write leaves the place empty, which the recursion passes over.

    Args:
        start: first points, float of shape (runs, size).
        settings: how to minimise.
    """

    _LEAST_CURVATURE = 1e-10

    def __init__(self, start: torch.Tensor, settings: LBFGSSettings = LBFGSSettings()) -> None:
        runs, size = start.shape
        self.points = start.clone()
        self.losses = start.new_full((runs,), float("nan"))
        self.ended = torch.zeros(runs, dtype=torch.bool, device=start.device)
        self._settings = settings
        self._moves = start.new_zeros(settings.history, runs, size)
        self._changes = start.new_zeros(settings.history, runs, size)
        self._inverse_curvatures = start.new_zeros(settings.history, runs)
        self._scale = start.new_ones(runs)
        self._fresh = torch.ones_like(self.ended)
        self._gradients = torch.zeros_like(start)
        self._move = torch.zeros_like(start)
        self._place = 0

    def replace(self, runs: Sequence[int], start: torch.Tensor) -> None:
        """Starts some runs anew.

        Args:
            runs: their numbers.
            start: their first points, (len(runs), size).
        """
        index = torch.tensor(runs, device=start.device)
        self.points[index] = start
        self._inverse_curvatures[:, index] = 0
        self._moves[:, index] = 0
        self._changes[:, index] = 0
        self._scale[index] = 1
        self._fresh[index] = True
        self.ended[index] = False

    def keep(self, runs: Sequence[int]) -> None:
        """Goes on with these runs only, in this order."""
        index = torch.tensor(runs, device=self.points.device)
        for name in ("points", "losses", "ended", "_scale", "_fresh", "_gradients", "_move"):
            setattr(self, name, getattr(self, name)[index])
        for name in ("_moves", "_changes", "_inverse_curvatures"):
            setattr(self, name, getattr(self, name)[:, index])

    def step(self, evaluate: Evaluate) -> None:
        """Makes up to ``evaluations`` moves of each run; ``losses`` are then those of ``points``.

        Args:
            evaluate: from points to losses and gradients.
        """
        if self._fresh.any():
            losses, gradients = evaluate(self.points)
            self.losses = torch.where(self._fresh, losses, self.losses)
            self._gradients = torch.where(self._fresh[:, None], gradients, self._gradients)
            self._end_flat()
        for _ in range(self._settings.evaluations):
            if bool(self.ended.all()):
                return
            self._one_move(evaluate)

    def _one_move(self, evaluate: Evaluate) -> None:
        gradients = self._gradients
        direction = self._direction(gradients)
        rate = torch.full_like(self._scale, self._settings.learning_rate)
        first = (1 / gradients.abs().sum(dim=1)).clamp(max=1) * self._settings.learning_rate
        rate = torch.where(self._fresh, first, rate)
        slope = (gradients * direction).sum(dim=1)
        self.ended |= slope > -self._settings.tolerance_change
        # An ended run stays where it is, whatever its direction is.
        self._move = torch.where(self.ended[:, None], 0, direction * rate[:, None])
        self.points += self._move
        self.losses, self._gradients = evaluate(self.points)
        self._remember(self._gradients - gradients)
        self._fresh = torch.zeros_like(self._fresh)
        self._end_flat()

    def _end_flat(self) -> None:
        broken = ~(self.losses.isfinite() & self._gradients.isfinite().all(dim=1))
        self.ended |= broken | (self._gradients.abs().amax(dim=1) <= self._settings.tolerance_grad)

    def _remember(self, change: torch.Tensor) -> None:
        curvature = (change * self._move).sum(dim=1)
        # Written so that NaN is not remembered either.
        good = (curvature > self._LEAST_CURVATURE) & ~self.ended
        self._moves[self._place] = torch.where(good[:, None], self._move, 0)
        self._changes[self._place] = torch.where(good[:, None], change, 0)
        self._inverse_curvatures[self._place] = torch.where(good, 1 / curvature, 0)
        self._scale = torch.where(good, curvature / change.square().sum(dim=1), self._scale)
        self._place = (self._place + 1) % self._settings.history

    def _direction(self, gradients: torch.Tensor) -> torch.Tensor:
        history = self._settings.history
        written = self._inverse_curvatures.any(dim=1).tolist()
        newest_first = [(self._place - 1 - age) % history for age in range(history)]
        used = [place for place in newest_first if written[place]]
        direction = -gradients
        factors = {}
        for place in used:
            projection = (self._moves[place] * direction).sum(dim=1)
            factors[place] = (self._inverse_curvatures[place] * projection)[:, None]
            direction.addcmul_(factors[place], self._changes[place], value=-1)
        direction *= self._scale[:, None]
        for place in reversed(used):
            projection = (self._changes[place] * direction).sum(dim=1)
            factor = factors[place] - (self._inverse_curvatures[place] * projection)[:, None]
            direction.addcmul_(factor, self._moves[place])
        return direction
