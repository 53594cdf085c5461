"""One run among those that are trained together, as its method sees it between two rounds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from experiments.sparse.updates import RoundedUpdates
from secretflow.security.aggregation.secagg.ballot import Ballot

NUMBER = 4
"""Bytes of a weight on the wire: an element of a ring of 32 bits."""

_DRAWN = 15_485_863
"""Added to the seed of what is drawn. The initial weights are drawn with the seed itself, and a mask of the
same numbers would keep the lowest of each layer."""


class Job:
    """One run: its parties' weights and masks, and what a party has uploaded.

    Args:
        weights: all parameters by name, (parties, ...), sharing memory with what is trained.
        masks: of the prunable ones, 0 and 1, in the same shapes, sharing memory with what training uses.
        gradients: gives the gradient of a parameter after the round's last step, all its weights' included.
        seed: of what all parties draw alike.
        factors: of each layer's steps, (parties, 1, ...), sharing memory with what training uses.
        step_power: see :attr:`~experiments.sparse.methods.Method.step_power`.
        epochs: of the run.

    Attributes:
        samples: how many rows each party has trained on in the round, float64.
        losses: each party's mean loss in the round.
        uploaded: bytes of one party so far, on average over the parties.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        seed: int,
        factors: Mapping[str, Tensor],
        step_power: float,
        epochs: int,
    ) -> None:
        self.weights, self.masks, self.gradients, self.epochs = weights, masks, gradients, epochs
        self._factors, self._step_power = factors, step_power
        self.uploaded = 0.0
        first = next(iter(weights.values()))
        self.parties = first.shape[0]
        self.samples = torch.ones(self.parties, dtype=torch.float64, device=first.device)
        self.losses = torch.zeros(self.parties, device=first.device)
        self.draw = torch.Generator(first.device).manual_seed(seed + _DRAWN)
        self._seed = seed
        self._updates: RoundedUpdates | None = None
        self._partial_known: Tensor | None = None

    @property
    def sizes(self) -> list[int]:
        """Weights of each prunable layer of one party."""
        return [mask[0].numel() for mask in self.masks.values()]

    @property
    def size(self) -> int:
        """Prunable weights of one party."""
        return sum(self.sizes)

    @property
    def others(self) -> int:
        """Weights of one party that are not prunable."""
        return sum(value[0].numel() for value in self.weights.values()) - self.size

    def living(self) -> list[int]:
        """Living weights of each layer, of the first party."""
        return [int(mask[0].count_nonzero()) for mask in self.masks.values()]

    def density(self) -> float:
        """Density, the mean over the parties."""
        return (
            sum(float(mask.sum(dtype=torch.float64)) for mask in self.masks.values())
            / self.size
            / self.parties
        )

    def flat(self, name: str) -> Tensor:
        """The weights of a layer, (parties, size)."""
        return self.weights[name].flatten(1)

    def flat_masks(self) -> list[Tensor]:
        """The masks of all layers, boolean, (parties, size)."""
        return [mask.flatten(1) != 0 for mask in self.masks.values()]

    def use(self, masks: list[Tensor]) -> None:
        """Takes masks, boolean, of one row for each party or one for all; what they prune becomes zero."""
        for (name, own), new in zip(self.masks.items(), masks, strict=True):
            own.flatten(1).copy_(new.expand(self.parties, -1))
            self.weights[name].mul_(own)
        self.scale_steps(self._step_power)
        if self._updates is not None:
            self._updates.prune(self.masks)

    def scale_steps(self, power: float) -> None:
        """Multiplies steps in a layer with its density to the power of minus this."""
        for name, own in self.masks.items():
            if name in self._factors:
                factor = own.flatten(1).mean(1).pow(-power)
                self._factors[name].copy_(factor.view(-1, *[1] * (own.dim() - 1)))

    def round_updates(self, bits: int) -> None:
        """Has :meth:`average_shared` round updates.

        Args:
            bits: see :class:`~experiments.sparse.updates.RoundedUpdates`.
        """
        self._updates = RoundedUpdates(bits, self.weights, self._seed)

    def average_shared(self) -> None:
        """Gives all parties the average, under a mask that all share."""
        share = self.samples / self.samples.sum()
        travelling = sum(self.living()) + self.others
        if self._updates is not None:
            self._updates.average(self.weights, share)
            self.uploaded += self._updates.nbytes(travelling)
            return
        for value in self.weights.values():
            value.copy_(torch.tensordot(share.float(), value, 1).expand_as(value).clone())
        self.uploaded += NUMBER * travelling

    def average_living(self, at_least: int, over: str = "living", lone: str = "own") -> None:
        """Averages each weight that enough parties keep, as ``SecurePruneAggregator`` does.

        Counts what a party uploads with it: the weights that travel, and the share of the weight behind those
        that some have pruned unless it is known from the round before or not needed.

        Args:
            at_least: fewest parties that must keep a weight for it to travel.
            over: "living": over the parties that keep it; "all": over all, where it is pruned it is zero.
            lone: what becomes of a weight that fewer keep, which does not travel: "own" stays as it is,
                "part" is multiplied with its party's share, "pruned" is pruned.
        """
        share = self.samples / self.samples.sum()
        travelling = partial = 0
        for name, value in self.weights.items():
            if name not in self.masks:
                value.copy_(torch.tensordot(share.float(), value, 1).expand_as(value).clone())
                continue
            mask = self.masks[name]
            count = mask.sum(0)
            travels = count >= at_least
            behind = torch.tensordot(share.float(), mask, 1)
            mean = torch.tensordot(share.float(), value * mask, 1)
            if over == "living":
                mean /= behind.clamp_min(1e-12)
            if lone == "part":
                value.mul_(share.float().view(-1, *[1] * (value.dim() - 1)))
            elif lone == "pruned":
                mask.mul_(travels)
            value.copy_(torch.where(travels, mean, value) * mask)
            travelling += int(travels.count_nonzero())
            partial += int((travels & (count < self.parties)).count_nonzero())
        known = over == "all" or (
            self._partial_known is not None and torch.equal(self._partial_known, self.samples)
        )
        self.uploaded += NUMBER * (travelling + self.others + (0 if known else partial))
        self._partial_known = self.samples.clone()

    def agree(self, at_least: int) -> None:
        """Counts the bytes of an agreement on masks that shrink, some bits for each weight that travels.

        Args:
            at_least: as for :meth:`average_living`, of the masks before the change.
        """
        counts = [mask.sum(0) >= at_least for mask in self.masks.values()]
        size = sum(int(each.count_nonzero()) for each in counts)
        self.uploaded += Ballot(self.parties, counting=False, leaving=True).nbytes(size)
        self._partial_known = None
