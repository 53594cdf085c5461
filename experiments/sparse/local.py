"""Local masks with one thing changed at a time, to find out why they fall."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from experiments.sparse.job import Job
from experiments.sparse.methods import Method
from experiments.sparse.selection import keep_largest_over_layers
from secretflow.ml.nn.fl.plan import Round
from secretflow.ml.nn.fl.pruning.curves import cubic


class Local(Method):
    """Each party prunes its own weights, over all layers, as a cubic.

    Args:
        density: fraction of the prunable weights that live in the end.
        warm_up: rounds of dense training.
        span: rounds in which the density falls.
        at_least: fewest parties that must keep a weight for it to be averaged.
        own: part of a party's own weights in what it scores, the rest is the average that the round began
            with: 1 is the product's local masks, 0 gives all the same mask.
        divisor: "living" averages over the parties that keep a weight, "all" over all parties.
        lone: see :meth:`~experiments.sparse.job.Job.average_living`; None is "part" with the divisor "all",
            else "own".
        step_power: see :class:`~experiments.sparse.methods.Method`.
        shows_union: whether the model after the last round has all weights that any party keeps.
    """

    def __init__(
        self,
        density: float,
        *,
        warm_up: int = 0,
        span: int = 24,
        at_least: int = 2,
        own: float = 1.0,
        divisor: str = "living",
        lone: str | None = None,
        step_power: float = 0.0,
        shows_union: bool = False,
    ) -> None:
        self.step_power = step_power
        self._density, self._warm_up, self._span = density, warm_up, span
        self._at_least, self._own, self._divisor, self._shows_union = at_least, own, divisor, shows_union
        self._lone = lone or ("part" if divisor == "all" else "own")
        self._done = 0
        self._average: dict[str, Tensor] = {}
        self._overlap: dict[str, float] = {}

    def start(self, job: Job, rounds: int) -> None:
        """Keeps the average that training begins with."""
        self._keep_average(job)

    def end_round(self, job: Job, this: Round) -> None:
        """Prunes, then averages."""
        self._done += 1
        done = self._done - self._warm_up
        if 0 < done <= self._span:
            rate = cubic(done / self._span, self._density)
            job.agree(self._at_least)
            scores = [
                (self._own * job.flat(name) + (1 - self._own) * self._average[name]).abs()
                for name in job.masks
            ]
            job.use(keep_largest_over_layers(scores, job.flat_masks(), math.floor(rate * job.size + 1e-9)))
        job.average_living(self._at_least, self._divisor, self._lone)
        self._keep_average(job)
        if this.ends_fit:
            self._overlap = overlap_of(job)
            if self._shows_union:
                for name in job.masks:
                    job.weights[name].flatten(1).copy_(self._average[name].expand(job.parties, -1))

    def notes(self) -> dict[str, float]:
        """See :func:`overlap_of`."""
        return self._overlap

    def _keep_average(self, job: Job) -> None:
        """What is averaged is the same wherever it lives; the largest magnitude finds it."""
        for name in job.masks:
            flat = job.flat(name)
            self._average[name] = flat.gather(0, flat.abs().argmax(0, keepdim=True)).clone()


def overlap_of(job: Job) -> dict[str, float]:
    """How much masks have in common.

    Returns:
        "kept_by_both": mean over the pairs of parties of the part of the living weights that both keep.
        "union": weights that any party keeps, as a multiple of what one keeps. "contributors": mean over the
        weights of the union of how many parties keep each.
    """
    flat = torch.cat([mask.flatten(1) for mask in job.masks.values()], 1)
    living = float(flat[0].sum())
    together = (flat @ flat.T).triu(1).sum() / (job.parties * (job.parties - 1) / 2)
    union = float((flat.sum(0) > 0).sum())
    return {
        "kept_by_both": round(float(together) / living, 4),
        "union": round(union / living, 4),
        "contributors": round(float(flat.sum()) / union, 4),
    }
