"""Shared masks that follow the average, and masks agreed by votes: the methods under study."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from experiments.sparse.job import Job
from experiments.sparse.methods import Method, numbers
from experiments.sparse.peers import erk_counts
from experiments.sparse.selection import grow_largest, keep_largest, keep_largest_over_layers, lamp
from secretflow.ml.nn.fl.plan import Round
from secretflow.ml.nn.fl.pruning.curves import cubic


class Following(Method):
    """One mask for all, of the average's largest weights, over all layers.

    Args:
        density: fraction of the prunable weights that live in the end.
        warm_up: rounds of dense training; "loss" trains densely until the mean loss of a round is below half
            of the first round's.
        span: rounds in which the density falls, as a cubic or, with ``geometric``, by equal factors.
        geometric: see ``span``.
        tail: the cubic falls to so many times the density, and that part then to 1 by equal factors; so
            "cubic-geometric" of :class:`~secretflow.ml.nn.fl.pruning.PruneSettings` does.
        tail_end: rounds after which that part is 1.
        exponent: see :meth:`~experiments.sparse.stack.Stack.reparametrise`.
        step_power: see :class:`~experiments.sparse.methods.Method`.
        regrow: "none"; "probe": parties upload the gradient of a random part of the pruned weights, and those
            of the largest mean gradient take the place of the smallest living ones; "trial": a random part of
            the pruned weights is trained for a round, and the largest weights of the average live on.
        candidates: that part, as a fraction of all prunable weights.
        exchanged: fraction of the living weights that the first "probe" exchanges; it falls to 0 as a cosine.
        every: rounds from one regrowth to the next.
        until: fraction of all rounds after which nothing regrows.
        layers: how weights of several layers are compared: "" by magnitude, "lamp" as the product's
            criterion, "fan" by magnitude times the root of a unit's inputs, "erk" not at all: each layer has
            its Erdős-Rényi-Kernel count.
        calm: whether steps, once nothing is pruned any more, come back to what the optimiser makes them,
            evenly over the rounds that are left.
        votes: whether parties vote for what lives, with masks of their own largest weights; the average's
            magnitudes decide between weights of as many votes.
    """

    def __init__(
        self,
        density: float,
        *,
        warm_up: int | str = 0,
        span: int = 8,
        geometric: bool = False,
        tail: float = 1.0,
        tail_end: int = 0,
        exponent: float = 1.0,
        step_power: float = 0.0,
        calm: bool = False,
        regrow: str = "none",
        candidates: float = 0.02,
        exchanged: float = 0.2,
        every: int = 4,
        until: float = 0.75,
        votes: bool = False,
        layers: str = "",
    ) -> None:
        self.exponent, self.step_power = exponent, step_power
        self._density, self._warm_up, self._span, self._geometric = density, warm_up, span, geometric
        self._regrow, self._candidates, self._exchanged = regrow, candidates, exchanged
        self._every, self._until, self._votes = every, until, votes
        self._layers, self._calm = layers, calm
        self._tail, self._tail_end = tail, max(tail_end, span)
        self._started = None if isinstance(warm_up, str) else warm_up
        self._on_trial = False
        self._first_loss = math.nan
        self._done = 0

    def start(self, job: Job, rounds: int) -> None:
        """Takes notice of how many rounds there are."""
        self._rounds = rounds

    def end_round(self, job: Job, this: Round) -> None:
        """Averages, then prunes the average."""
        self._done += 1
        self._decide(job)
        step = self._started is not None and self._done > self._started
        falls = step and self._done - self._started <= self._tail_end  # type: ignore[operator]
        probes = step and self._regrow == "probe" and self._regrows_at(self._done)
        masks = [mask[:1] for mask in job.flat_masks()]
        probe = self._probe(job, masks) if probes else None
        ballots = self._ballots(job, masks) if self._votes and falls else None
        job.average_shared()
        if self._calm and self._done > self._tail_end:
            left = (self._rounds - self._done) / (self._rounds - self._tail_end)
            job.scale_steps(self.step_power * left)
        if not (falls or probes or self._on_trial):
            if step and self._regrow == "trial" and self._regrows_at(self._done + 1):
                self._try_out(job, masks)
            return
        scores = [job.flat(name)[:1].abs() for name in job.masks]
        if self._layers == "lamp":
            scores = list(map(lamp, scores))
        elif self._layers == "fan":
            inputs = [mask[0, 0].numel() for mask in job.masks.values()]
            scores = [score * count**0.5 for score, count in zip(scores, inputs, strict=True)]
        if ballots is not None:
            top = max(float(score.max()) for score in scores) + 1e-12
            scores = [votes + score / top for votes, score in zip(ballots, scores, strict=True)]
        keep = max(len(masks), math.floor(self._now() * job.size + 1e-9))
        if self._layers == "erk":
            counts = erk_counts([tuple(mask.shape[1:]) for mask in job.masks.values()], self._now() - 1e-9)
            kept = [keep_largest(*each) for each in zip(scores, masks, counts, strict=True)]
        elif probe is None:
            kept = keep_largest_over_layers(scores, masks, keep)
        else:
            signal, free = probe
            exchanged = math.floor(keep * self._exchanged * self._cosine())
            exchanged = min(exchanged, int(free.sum()))
            alive = torch.cat(keep_largest_over_layers(scores, masks, keep - exchanged), 1)[0]
            kept = _split(grow_largest(signal, alive, free, keep - int(alive.sum())), masks)
        self._on_trial = False
        job.use(kept)
        if step and self._regrow == "trial" and self._regrows_at(self._done + 1):
            self._try_out(job, kept)

    def _decide(self, job: Job) -> None:
        """Sets when pruning starts: all parties see the same mean loss, so all come to the same."""
        loss = float((job.losses * job.samples).sum() / job.samples.sum())
        if self._done == 1:
            self._first_loss = loss
        if self._started is None and self._warm_up == "loss" and loss < self._first_loss / 2:
            self._started = self._done - 1

    def _now(self) -> float:
        """The density that the schedule has come to."""
        assert self._started is not None
        progress = (self._done - self._started) / self._span
        if self._geometric:
            return self._density ** min(1.0, progress)
        left = 1 - min(1.0, (self._done - self._started) / self._tail_end)
        return cubic(progress, min(1.0, self._density * self._tail**left))

    def _cosine(self) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, self._done / (self._until * self._rounds))))

    def _regrows_at(self, number: int) -> bool:
        return number % self._every == 0 and number < self._until * self._rounds

    def _try_out(self, job: Job, masks: list[Tensor]) -> None:
        """Lets a random part of the pruned weights live for a round."""
        alive = torch.cat(masks, 1)[0]
        job.use(_split(alive | self._drawn(job, ~alive), masks))
        self._on_trial = True

    def _drawn(self, job: Job, free: Tensor) -> Tensor:
        """A random part of the pruned weights, the same at all parties."""
        count = min(int(free.sum()), math.floor(self._candidates * job.size))
        chance = torch.rand(free.shape, generator=job.draw, device=free.device)
        chosen = torch.zeros_like(free)
        chosen[torch.where(free, chance, -1.0).topk(count).indices] = True
        return chosen

    def _probe(self, job: Job, masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The mean gradient's magnitude, and the pruned weights of which it is known."""
        free = self._drawn(job, ~torch.cat(masks, 1)[0])
        job.uploaded += numbers(int(free.sum()))
        return mean_gradient(job).abs(), free

    def _ballots(self, job: Job, masks: list[Tensor]) -> list[Tensor]:
        """How many parties keep each weight."""
        keep = math.floor(self._now() * job.size)
        job.uploaded += sum(int(mask.sum()) for mask in masks)
        own = keep_largest_over_layers(
            [job.flat(name).abs() for name in job.masks],
            [mask.expand(job.parties, -1) for mask in masks],
            keep,
        )
        return [mask.sum(0, keepdim=True).float() for mask in own]


def mean_gradient(job: Job) -> Tensor:
    """The gradient of all prunable weights, mean over the parties by their samples, (size,)."""
    share = (job.samples / job.samples.sum()).float()
    return torch.cat([share @ job.gradients[name].flatten(1) for name in job.masks])


def _split(flat: Tensor, masks: list[Tensor]) -> list[Tensor]:
    return list(flat[None].split([mask.shape[1] for mask in masks], 1))
