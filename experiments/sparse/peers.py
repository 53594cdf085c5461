"""Published methods, written from their papers, for comparison only.

Each is simplified where its paper tunes for a cost that is not measured here; the docstrings say how. Weights
on the wire count as everybody else's, 4 bytes; masks that parties send count one bit for each prunable
weight.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from experiments.sparse.job import Job
from experiments.sparse.methods import Method, mask_bytes, numbers
from experiments.sparse.selection import grow_largest, keep_largest, keep_largest_over_layers
from secretflow.ml.nn.fl.plan import Round


def erk_counts(shapes: list[tuple[int, ...]], density: float) -> list[int]:
    """Living weights of each layer: Erdős-Rényi-Kernel densities (Evci et al., "RigL", ICML 2020, section 3).

    Args:
        shapes: of the layers.
        density: over all of them, in (0, 1).
    """
    sizes = [math.prod(shape) for shape in shapes]
    raw = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    dense: set[int] = set()
    while True:
        budget = density * sum(sizes) - sum(sizes[k] for k in dense)
        scale = budget / sum(raw[k] * sizes[k] for k in range(len(sizes)) if k not in dense)
        full = {k for k in range(len(sizes)) if k not in dense and scale * raw[k] >= 1}
        if not full:
            break
        dense |= full
    return [size if k in dense else max(1, round(scale * raw[k] * size)) for k, size in enumerate(sizes)]


def random_masks(job: Job, counts: list[int]) -> list[Tensor]:
    """Masks of so many random weights in each layer, the same at all parties."""
    masks = []
    for mask, count in zip(job.masks.values(), counts, strict=True):
        size = mask[0].numel()
        order = torch.rand(size, generator=job.draw, device=mask.device).argsort()
        new = torch.zeros(1, size, dtype=torch.bool, device=mask.device)
        new[0, order[:count]] = True
        masks.append(new)
    return masks


class _Adjusting(Method):
    """Sparse from the start; adjusts the mask every few rounds until three quarters of them.

    Args:
        density: of the whole training.
        every: rounds from one adjustment to the next.
        exchanged: part of the living weights that the first adjustment exchanges; falls to 0 as a cosine.
    """

    def __init__(self, density: float, *, every: int = 4, exchanged: float = 0.4) -> None:
        self._density, self._every, self._exchanged = density, every, exchanged
        self._done = 0

    def start(self, job: Job, rounds: int) -> None:
        """Draws a random sparse mask."""
        self._rounds = rounds
        self._counts = erk_counts([tuple(mask.shape[1:]) for mask in job.masks.values()], self._density)
        job.use(random_masks(job, self._counts))

    def _adjusts(self) -> bool:
        return self._done % self._every == 0 and self._done < 0.75 * self._rounds

    def _part(self) -> float:
        return self._exchanged * 0.5 * (1 + math.cos(math.pi * self._done / (0.75 * self._rounds)))

    def _moved(self, count: int, size: int) -> int:
        """How many of a layer's living weights are exchanged."""
        return math.floor(self._part() * min(count, size - count))


class FedDst(_Adjusting):
    """FedDST (Bibikar et al., AAAI 2022, algorithm 1): parties exchange weights by magnitude and own
    gradient, train a round under masks of their own, and the server averages what lives and prunes to the
    density again.

    Simplified: the exchange stands between two rounds, with the gradient of the last batch; the server prunes
    each layer to its Erdős-Rényi-Kernel count.
    """

    def end_round(self, job: Job, this: Round) -> None:
        """Averages; in a round of exchanged masks the server prunes."""
        self._done += 1
        own_masks = (self._done - 1) % self._every == 0 and 1 < self._done < 0.75 * self._rounds + 1
        if own_masks:
            before = job.uploaded
            job.average_living(1)
            job.uploaded = before + numbers(sum(job.living()) + job.others) + mask_bytes(job)
            kept = []
            for name, mask, count in zip(job.masks, job.flat_masks(), self._counts, strict=True):
                flat = job.flat(name)
                mean = flat.gather(0, flat.abs().argmax(0, keepdim=True))
                flat.copy_(mean.expand_as(flat))
                kept.append(keep_largest(mean.abs(), mask.any(0, keepdim=True), count))
            job.use(kept)
        else:
            job.average_shared()
        if self._adjusts():
            changed = []
            for name, mask, count in zip(job.masks, job.flat_masks(), self._counts, strict=True):
                moved = self._moved(count, mask.shape[1])
                kept_mask = keep_largest(job.flat(name).abs(), mask, count - moved)
                signal = job.gradients[name].flatten(1).abs()
                own = [grow_largest(signal[k], kept_mask[k], ~mask[k], moved) for k in range(job.parties)]
                changed.append(torch.stack(own))
            job.use(changed)


class PruneFl(_Adjusting):
    """PruneFL (Jiang et al., IEEE TNNLS 2022, sections III and IV): one party prunes before the others join;
    then adjustments upload the squared gradients of all weights, and those of the largest replace small
    weights.

    Simplified: the density is given, where the paper weighs it against time; the first party, the one with
    the most rows, trains for four rounds, which are of the run's and cost no bytes.
    """

    def start(self, job: Job, rounds: int) -> None:
        """Begins densely."""
        self._rounds = rounds

    def end_round(self, job: Job, this: Round) -> None:
        """Averages, and adjusts where it is due."""
        self._done += 1
        keep = math.floor(self._density * job.size)
        masks = [mask[:1] for mask in job.flat_masks()]
        if self._done <= 4:
            first = int(job.samples.argmax())
            for value in job.weights.values():
                value.copy_(value[first : first + 1].expand_as(value).clone())
            if self._done == 4:
                job.use(keep_largest_over_layers([job.flat(n)[:1].abs() for n in job.masks], masks, keep))
            return
        if not self._adjusts():
            job.average_shared()
            return
        share = (job.samples / job.samples.sum()).float()
        signal = torch.cat([share @ job.gradients[name].flatten(1).square() for name in job.masks])
        job.uploaded += numbers(job.size)
        job.average_shared()
        alive = torch.cat(masks, 1)[0]
        scores = [job.flat(n)[:1].abs() for n in job.masks]
        fewer = keep - math.floor(self._part() * keep)
        kept = torch.cat(keep_largest_over_layers(scores, masks, fewer), 1)[0]
        new = grow_largest(signal, kept, ~kept, int(alive.sum()) - int(kept.sum()))
        job.use(list(new[None].split([mask.shape[1] for mask in masks], 1)))


class FedRts(_Adjusting):
    """FedRTS-like adjustment (Huang et al., "FedRTS", NeurIPS 2025): a weight is an arm with a Beta
    distribution, what parties and average say about it are its outcomes, and each adjustment keeps the arms
    of the largest draws.

    Simplified: outcomes are a half each of "among the largest of the average or grown by the mean gradient"
    and of the part of the parties for whose own weights that holds; the largest of the average stay, and
    draws decide what takes the place of the others. A party sends the positions of its gradient's largest
    pruned weights, as many as may be exchanged, in 4 bytes each.
    """

    def start(self, job: Job, rounds: int) -> None:
        """Begins with a random mask and even distributions."""
        super().start(job, rounds)
        self._wins = [np.ones(size) for size in job.sizes]
        self._losses = [np.ones(size) for size in job.sizes]
        device = job.samples.device
        seed = int(torch.randint(2**31, (), generator=job.draw, device=device))
        self._generator = np.random.default_rng(seed)

    def end_round(self, job: Job, this: Round) -> None:
        """Averages, and adjusts where it is due."""
        self._done += 1
        if not self._adjusts():
            job.average_shared()
            return
        sent, votes = 0, []
        for name, mask, count in zip(job.masks, job.flat_masks(), self._counts, strict=True):
            moved = self._moved(count, mask.shape[1])
            own = keep_largest(job.flat(name).abs(), mask, count - moved).float()
            signal = torch.where(mask, -1.0, job.gradients[name].flatten(1).abs())
            own.scatter_(1, signal.topk(moved, 1).indices, 1.0)
            votes.append(own.mean(0))
            sent += moved
        job.uploaded += numbers(sent)
        share = (job.samples / job.samples.sum()).float()
        job.average_shared()
        new = []
        for k, (name, mask, count) in enumerate(zip(job.masks, job.flat_masks(), self._counts, strict=True)):
            moved = self._moved(count, mask.shape[1])
            core = keep_largest(job.flat(name)[:1].abs(), mask[:1], count - moved)[0]
            signal = (share @ job.gradients[name].flatten(1)).abs()
            chosen = grow_largest(signal, core, ~mask[0], moved).float()
            outcome = ((chosen + votes[k]) / 2).cpu().numpy()
            self._wins[k] += 10 * outcome
            self._losses[k] += 10 * (1 - outcome)
            draw = torch.from_numpy(self._generator.beta(self._wins[k], self._losses[k])).to(core.device)
            new.append(grow_largest(draw, core, ~core, count - int(core.sum()))[None])
        job.use(new)


class LotteryFl(Method):
    """LotteryFL (Li et al., SEC 2021, algorithm 1): a party whose own loss is low enough prunes a fifth of
    its weights, over all layers, goes back to the initial values of the rest, and trains; what lives is
    averaged.

    Simplified: the threshold is a loss below 0.9 in place of an accuracy above one half, looked at once an
    epoch; judged is the model that a party holds on rows of all classes, as everywhere here, where the paper
    wants a model for the party's own.

    Args:
        density: at which a party stops.
    """

    def __init__(self, density: float) -> None:
        self._density = density
        self._rates: list[float] = []
        self._done = 0

    def start(self, job: Job, rounds: int) -> None:
        """Keeps the initial weights."""
        self._rounds = rounds
        self._rates = [1.0] * job.parties
        self._initial = {name: job.weights[name].clone() for name in job.masks}

    def end_round(self, job: Job, this: Round) -> None:
        """Averages, then prunes at the end of an epoch, but for the last."""
        self._done += 1
        before = job.uploaded
        job.average_living(1)
        job.uploaded = before + numbers(job.density() * job.size + job.others)
        if this.ends_epoch and self._done < self._rounds:
            self._prune(job)

    def _prune(self, job: Job) -> None:
        masks = job.flat_masks()
        scores = [job.flat(name).abs() for name in job.masks]
        for k, rate in enumerate(self._rates):
            if rate <= self._density or float(job.losses[k]) > 0.9:
                continue
            self._rates[k] = max(self._density, 0.8 * rate)
            job.uploaded += mask_bytes(job) / job.parties
            own = keep_largest_over_layers(
                [score[k : k + 1] for score in scores],
                [mask[k : k + 1] for mask in masks],
                math.floor(self._rates[k] * job.size),
            )
            for name, mask, new in zip(job.masks, masks, own, strict=True):
                mask[k] = new[0]
                job.weights[name][k].copy_(self._initial[name][k])
        job.use(masks)
