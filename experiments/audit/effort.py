"""How hard the attackers of the audit try."""

from __future__ import annotations

from dataclasses import dataclass, replace

from experiments.audit.cells import GROUP, PADDED
from experiments.audit.data import ATTACKED
from secretflow.ml.nn.fl.attacks import DLGSettings, InvertingSettings, LBFGSSettings

_PADDED_TIMES = 4
_LANES = 80
_SMALL, _LARGER = 28 * 28, 3  # larger images than MNIST's have so many times the steps, and one restart
_UNTIL_NOTHING_MOVES = LBFGSSettings(tolerance_grad=0, tolerance_change=0)
_SLOW_VIEWS = ("update k=5", "aggregate n=2", "aggregate n=4", "aggregate n=8")


@dataclass(frozen=True)
class Effort:
    """How hard the attackers try. What is no count of images was chosen on images from number 50 on.

    Attributes:
        images: to attack in each cell, at least 1; of padded uploads four times as many, if there are.
        first: number of the first of them.
        restarts: random starts of an L-BFGS attack on small images, at least 1.
        slow_restarts: the same on updates of several steps and on aggregates, which take longer.
        iterations: steps of a restart of DLG and iDLG, each of 20 evaluations, at least 1.
        adam_iterations: steps of a restart of Inverting Gradients, each of 20 evaluations, at least 1.
        patience: see :class:`~secretflow.ml.nn.fl.attacks.restarts.SearchSettings`.
        start_mean: see :class:`~secretflow.ml.nn.fl.attacks.dlg.DLGSettings`.
        start_deviation: see there.
        tv_weight: weight of the total variation in Inverting Gradients.
        seed: of nets and starts.
    """

    images: int = 20
    first: int = 0
    restarts: int = 4
    slow_restarts: int = 2
    iterations: int = 60
    adam_iterations: int = 30
    patience: int = 6
    start_mean: float = 0.5
    start_deviation: float = 0.1
    tv_weight: float = 1e-3
    seed: int = 1

    def on(self, view: str) -> Effort:
        """That on one view: more images where nothing should come back, so that few hits say something."""
        if view == PADDED:
            return replace(self, images=min(_PADDED_TIMES * self.images, ATTACKED - GROUP - self.first))
        return replace(self, restarts=self.slow_restarts) if view in _SLOW_VIEWS else self

    def dlg(self, pixels: int) -> DLGSettings:
        """For DLG and iDLG on images of so many numbers.

        From grey, no restart on larger images was found to fail; they are slow, and get one.
        """
        small = pixels <= _SMALL
        return DLGSettings(
            _stretched(self.iterations, pixels),
            self.restarts if small else 1,
            patience=_stretched(self.patience, pixels),
            lanes=_LANES,
            seed=self.seed,
            lbfgs=LBFGSSettings() if small else _UNTIL_NOTHING_MOVES,
            start_mean=self.start_mean,
            start_deviation=self.start_deviation,
        )

    def inverting(self, pixels: int) -> InvertingSettings:
        """For Inverting Gradients on images of so many numbers; one restart, as few starts fail it."""
        return InvertingSettings(
            _stretched(self.adam_iterations, pixels), tv_weight=self.tv_weight, lanes=_LANES, seed=self.seed
        )


def _stretched(steps: int, pixels: int) -> int:
    return steps if pixels <= _SMALL else _LARGER * steps
