"""Pruned training of two unequal parties, written out in numpy and torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn, optim

from secretflow.ml.nn.fl.pruning import Mask, PruneSettings, density, pruned_masks

from ..conftest import Mlp
from .conftest import BATCH, LR, ROWS, data_of

LAYERS = ("hidden.weight", "out.weight")


def named(arrays: Sequence[np.ndarray | None]) -> Mask:
    """The arrays of the layers, by name."""
    return {name: array for name, array in zip(LAYERS, arrays, strict=True) if array is not None}


class Reference:
    """Federated averaging with pruning written out, with nothing of SecretFlow's."""

    def __init__(self, settings: PruneSettings) -> None:
        self.settings = settings
        self.nets = [Mlp(), Mlp()]
        for net in self.nets:
            torch.manual_seed(5)
            net.load_state_dict(Mlp().state_dict())
        self.masks = [[np.ones(w.shape, np.uint8) for w in self._matrices(net)] for net in self.nets]
        self.starts = [self._flat(net) for net in self.nets]
        self.withheld = [np.zeros_like(start) for start in self.starts]

    @staticmethod
    def _flat(net: nn.Module) -> np.ndarray:
        return np.concatenate([value.numpy().ravel() for value in net.state_dict().values()])

    @staticmethod
    def _fill(net: nn.Module, flat: np.ndarray) -> None:
        first = 0
        for value in net.state_dict().values():
            value.numpy().flat = flat[first : first + value.numel()]
            first += value.numel()

    def _begin_round(self, k: int) -> None:
        self.starts[k] = self._flat(self.nets[k])
        self._fill(self.nets[k], self.starts[k] + self.withheld[k])
        self._zero(k)

    def _withhold(self, k: int) -> None:
        lives = np.concatenate(
            [
                self.masks[k][LAYERS.index(name)].ravel() if name in LAYERS else np.ones(value.numel())
                for name, value in self.nets[k].state_dict().items()
            ]
        )
        trained = self._flat(self.nets[k])
        change = (trained - self.starts[k]) * lives
        largest = np.argsort(-np.abs(change))[: round(lives.sum() * self.settings.withhold_percent / 100)]
        self.withheld[k] = np.zeros_like(change)
        self.withheld[k][largest] = change[largest]
        trained[largest] = self.starts[k][largest]
        self._fill(self.nets[k], trained)

    @staticmethod
    def _matrices(net: nn.Module) -> list[np.ndarray]:
        state = net.state_dict()
        return [state[name].numpy() for name in LAYERS]

    def _zero(self, k: int) -> None:
        for array, mask in zip(self._matrices(self.nets[k]), self.masks[k], strict=True):
            array *= mask

    def _prune(self, k: int, epoch: float) -> None:
        if self.settings.step_due(epoch, density(named(self.masks[k]))):
            gradients = [dict(self.nets[k].named_parameters())[name].grad.numpy() for name in LAYERS]
            weights, mask = named(self._matrices(self.nets[k])), named(self.masks[k])
            self.masks[k] = [*pruned_masks(weights, mask, self.settings, epoch, named(gradients)).values()]
            self._zero(k)

    def _average(self, sizes: list[int]) -> None:
        states = [net.state_dict() for net in self.nets]
        for name in states[0]:
            values = [state[name].numpy() for state in states]
            masks = [
                mask[LAYERS.index(name)] if name in LAYERS else np.ones(value.shape)
                for mask, value in zip(self.masks, values, strict=True)
            ]
            both = (masks[0] * masks[1]) == 1
            mean = (sizes[0] * values[0] + sizes[1] * values[1]) / sum(sizes)
            for value in values:
                value[both] = mean[both]

    def fit(self, epochs: int, aggregate_freq: int) -> None:
        self.settings = self.settings.over(epochs)
        rate = BATCH / min(ROWS)
        batches = [int(rows * rate) for rows in ROWS]
        steps = int(np.ceil(1 / rate))
        data = [data_of(seed, rows) for seed, rows in enumerate(ROWS)]
        for epoch in range(1, epochs + 1):
            for first in range(0, steps, aggregate_freq):
                last = min(first + aggregate_freq, steps)
                number, rounds = first // aggregate_freq + 1, -(-steps // aggregate_freq)
                # Written out: the last round of an epoch, and each prune_freq-th before it.
                step = number == rounds or number in range(0, rounds, self.settings.prune_freq or rounds)
                passed = epoch - 1 + number / rounds
                sizes = [0, 0]
                for k, (x, y) in enumerate(data):
                    self._begin_round(k)
                    optimizer = optim.SGD(self.nets[k].parameters(), lr=LR)
                    for batch in range(first, last):
                        place = slice(batch * batches[k], (batch + 1) * batches[k])
                        inputs, labels = torch.tensor(x[place]), torch.tensor(y[place])
                        sizes[k] += len(inputs)
                        optimizer.zero_grad()
                        nn.functional.cross_entropy(self.nets[k](inputs), labels).backward()
                        optimizer.step()
                        self._zero(k)
                    if step and self.settings.mask_scope == "local":
                        self._prune(k, passed)
                    self._withhold(k)
                self._average(sizes)
                if step and self.settings.mask_scope == "global":
                    for k in range(2):
                        self._prune(k, passed)
