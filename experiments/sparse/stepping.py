"""The steps of an epoch, on a GPU recorded once and replayed: then no time goes into starting kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from experiments.sparse.batches import Batches
from experiments.sparse.stack import Part, Stack

_WARM_UP = 3


class Steps:
    """Trains a stack step by step.

    Args:
        stack: the models.
        x: features of all rows.
        y: their classes.
        masks: see :meth:`~experiments.sparse.stack.Stack.step`; changed in place between steps.
    """

    def __init__(self, stack: Stack, x: Tensor, y: Tensor, masks: Mapping[str, Tensor]) -> None:
        self._stack, self._x, self._y, self._masks = stack, x, y, masks
        self._replay: Callable[[], None] | None = None

    def begin_epoch(self, batches: Sequence[Batches]) -> None:
        """Takes an epoch's batches, in every epoch of the same shapes."""
        self._epoch = batches
        if self._x.is_cuda and self._replay is None:
            self._record()

    def step(self, number: int) -> Tensor:
        """Trains one step; returns each model's loss before it.

        Args:
            number: of the step in the epoch, from 0.
        """
        if self._replay is None:
            return self._stack.step(self._parts(number), self._masks)
        for (rows, weights), batches in zip(self._now, self._epoch, strict=True):
            rows.copy_(batches.rows[number])
            weights.copy_(batches.weights[number])
        self._replay()
        return self._losses.clone()

    def _parts(self, number: int) -> list[Part]:
        return [
            Part(
                batches.models,
                self._x[batches.rows[number]],
                self._y[batches.rows[number]],
                batches.weights[number],
            )
            for batches in self._epoch
        ]

    def _record(self) -> None:
        self._now = [(batches.rows[0].clone(), batches.weights[0].clone()) for batches in self._epoch]
        # Kept, as all that a recording reads: it knows addresses only.
        self._models = models = [batches.models for batches in self._epoch]
        weights = [value.detach().clone() for value in self._stack.weights.values()]

        def step() -> Tensor:
            parts = [
                Part(each, self._x[rows], self._y[rows], row_weights)
                for each, (rows, row_weights) in zip(models, self._now, strict=True)
            ]
            return self._stack.step(parts, self._masks)

        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._losses = step()
        # The steps to warm up have left nothing: weights as before, what the optimiser keeps is zero.
        for value in self._stack.state():
            value.zero_()
        for value, before in zip(self._stack.weights.values(), weights, strict=True):
            value.data.copy_(before)
        self._replay = graph.replay
