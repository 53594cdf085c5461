"""Averages of updates that travel as a few bits a number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from secretflow.security.aggregation.secagg.integers import LIMBS
from secretflow.security.aggregation.secagg.rounding import Rounding, rounding_key

_BYTES_OF_BOUND = 8 * LIMBS


class RoundedUpdates:
    """The parties' side of ``SecurePruneAggregator(upload_bits=...)`` with one mask for all, without pads.

    Args:
        bits: 8, 4 or 2.
        weights: of all parties by name, (parties, ...), the same at all.
        seed: of the run.
    """

    def __init__(self, bits: int, weights: Mapping[str, Tensor], seed: int) -> None:
        self._parties = len(next(iter(weights.values())))
        self._rounding = Rounding.make(bits, self._parties)
        self._references = {name: value[0].clone() for name, value in weights.items()}
        self._rests = {name: torch.zeros_like(value) for name, value in weights.items()}
        self._living = {name: torch.arange(value[0].numel()) for name, value in weights.items()}
        self._seed, self._done = seed, 0

    def nbytes(self, numbers: int) -> int:
        """Bytes that a party uploads in a round: so many numbers, and the bounds of all parameters."""
        words = self._rounding.lanes.words_of(numbers)
        return 8 * words + _BYTES_OF_BOUND * len(self._references)

    def prune(self, masks: Mapping[str, Tensor]) -> None:
        """Forgets what does not travel any more.

        Args:
            masks: of the prunable weights by name, 0 and 1, (parties, ...), the same at all.
        """
        for name, mask in masks.items():
            self._references[name].mul_(mask[0])
            self._rests[name].mul_(mask)
            self._living[name] = mask[0].flatten().nonzero().flatten()

    def average(self, weights: Mapping[str, Tensor], shares: Tensor) -> None:
        """Gives all parties the average.

        Args:
            weights: as of the class, changed in place.
            shares: of the parties in the weight of all, (parties,).
        """
        self._done += 1
        keys = [rounding_key(self._seed, str(party), 0, self._done) for party in range(self._parties)]
        for number, (name, values) in enumerate(weights.items()):
            reference, living = self._references[name], self._living[name].to(values.device)
            self._rests[name].add_(values - reference)
            of_all = self._rests[name].view(self._parties, -1)
            rests = of_all[:, living].cpu().numpy()
            bound = self._rounding.bound(float(np.abs(rests).max(1).mean()))
            total, steps = np.zeros(rests.shape[1]), np.empty(rests.shape[1], np.int16)
            for rest, share, key in zip(rests, shares.tolist(), keys, strict=True):
                self._rounding.round_off(steps, rest, bound, share, key, number)
                total += steps
            of_all[:, living] = torch.from_numpy(rests).to(of_all)
            update = torch.from_numpy(self._rounding.step(bound) * total).to(reference)
            reference.view(-1)[living] += update
            values.copy_(reference.expand_as(values))
