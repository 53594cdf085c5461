"""Trains many runs at once: all parties of all runs are one stack of models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from experiments.sparse.accuracy import accuracies
from experiments.sparse.batches import epoch_batches
from experiments.sparse.job import Job
from experiments.sparse.methods import Method
from experiments.sparse.stack import Stack
from experiments.sparse.stepping import Steps
from secretflow.ml.nn.fl.plan import Round, plan_epochs
from secretflow.ml.nn.fl.pruning import PruneSettings

_LOOKED_AT = 5_000
"""Test rows that are looked at after an epoch, the first ones; after the last one all are."""

_PART_OF_ROUND = 0.1
"""Of a round's average in the moving average of all."""

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Recipe:
    """How runs are trained; the same for all that stand in one table.

    Attributes:
        epochs: passes over the rows.
        aggregate_freq: steps between two averages.
        batch_size: mean rows in a party's batch; a party's part of it is its part of the rows.
        optimizer: "adam" or "sgd" (without momentum).
        learning_rate: of the optimiser.
        weight_decay: of the optimiser.
    """

    epochs: int
    aggregate_freq: int
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class Data:
    """A task's rows, where they are computed with.

    Attributes:
        x: features for training, float32.
        y: their classes, int64.
        x_test: features for testing.
        y_test: their classes.
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        method: what happens between two rounds; of this run alone.
        seed: of weights and order of rows.
        held: of each party the rows that it trains on.
        settings: what the product's plan is made from; None where the method has a schedule of its own.
        rate: multiplies every step of the optimiser.
        decay: "none", or "cosine": steps shrink to 0 as a cosine over all rounds.
    """

    method: Method
    seed: int
    held: Sequence[np.ndarray]
    settings: PruneSettings | None = None
    rate: float = 1.0
    decay: str = "none"

    def rate_at(self, progress: float) -> float:
        """What multiplies steps after a part of the rounds."""
        return self.rate * (0.5 * (1 + math.cos(math.pi * progress)) if self.decay == "cosine" else 1)


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        curve: after each epoch accuracy in percent, bytes that a party has uploaded so far, density and loss.
        weights: of each party after the last round, by name, (parties, ...).
        mean_accuracy: in percent, of a moving average of the rounds' averages.
    """

    curve: list[tuple[float, float, float, float]]
    weights: Mapping[str, Tensor]
    mean_accuracy: float


def train(
    runs: Sequence[Run],
    build: Callable[[], nn.Module],
    data: Data,
    recipe: Recipe,
    device: str = "cpu",
    matrices: bool | None = None,
) -> list[Outcome]:
    """Trains runs together; each comes to the numbers that it would come to by itself.

    Args:
        runs: all of as many parties and as many rows.
        build: builds a net.
        data: of all runs.
        recipe: of all runs.
        device: "cpu" or "cuda".
        matrices: see :class:`~experiments.sparse.stack.Stack`.
    """
    stack = Stack(
        build,
        [run.seed for run in runs],
        len(runs[0].held),
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        device=device,
        matrices=matrices,
    )
    fit = _Fit(stack, runs, data, recipe, device)
    for epoch in range(recipe.epochs):
        fit.train_epoch(epoch)
    return fit.outcomes()


class _Fit:
    """The training of a stack; arguments as for :func:`train`."""

    def __init__(self, stack: Stack, runs: Sequence[Run], data: Data, recipe: Recipe, device: str) -> None:
        self._stack, self._runs, self._data, self._recipe, self._device = stack, runs, data, recipe, device
        self._parties = parties = len(runs[0].held)
        self._rate = recipe.batch_size * parties / sum(len(part) for part in runs[0].held)
        self._steps = math.ceil(1 / self._rate)
        self._rounds = math.ceil(self._steps / recipe.aggregate_freq)
        # One dimension is the stack.
        prunable = [name for name, value in stack.weights.items() if value.dim() > 2]
        self._masks = {name: torch.ones_like(stack.weights[name].detach()) for name in prunable}
        stack.reparametrise(self._of_models([run.method.exponent for run in runs]), prunable)
        scaled = any(run.method.step_power or run.rate_at(0.5) != 1 for run in runs)
        factors = stack.scale_steps(self._of_models([run.rate for run in runs])) if scaled else {}
        self._own = [slice(k * parties, (k + 1) * parties) for k in range(len(runs))]
        self._jobs = [
            _job(stack, self._masks, factors, run, own, recipe.epochs)
            for run, own in zip(runs, self._own, strict=True)
        ]
        self._plans = [
            _plan(run, job, recipe, self._steps) for run, job in zip(runs, self._jobs, strict=True)
        ]
        for run, job in zip(runs, self._jobs, strict=True):
            run.method.start(job, self._rounds * recipe.epochs)
        self._training = Steps(stack, data.x, data.y, self._masks)
        self._mean = [value.detach().clone() for value in stack.weights.values()]
        self._curves: list[list[tuple[float, float, float, float]]] = [[] for _ in runs]

    def train_epoch(self, epoch: int) -> None:
        """Trains all rounds of an epoch, counted from 0, and looks at the accuracies."""
        held = [part for run in self._runs for part in run.held]
        seeds = self._of_models([run.seed for run in self._runs])
        batches, sizes = epoch_batches(
            held, seeds, self._rate, self._steps, epoch, self._device, self._stack.apart
        )
        self._training.begin_epoch(batches)
        for number in range(self._rounds):
            self._train_round(epoch, number, sizes)
        last = epoch + 1 == self._recipe.epochs
        found = self._accuracies(len(self._data.y_test) if last else _LOOKED_AT)
        for curve, job, accuracy in zip(self._curves, self._jobs, found, strict=True):
            curve.append((accuracy, job.uploaded, job.density(), float(job.losses.mean())))

    def outcomes(self) -> list[Outcome]:
        """What came of the runs, after the last epoch; leaves the mean of rounds in the stack."""
        weights = [{name: value.clone() for name, value in job.weights.items()} for job in self._jobs]
        for value, mean in zip(self._stack.weights.values(), self._mean, strict=True):
            value.data.copy_(mean)
        self._stack.zero_pruned(self._masks)
        means = self._accuracies(len(self._data.y_test))
        return [Outcome(*each) for each in zip(self._curves, weights, means, strict=True)]

    def _train_round(self, epoch: int, number: int, sizes: np.ndarray) -> None:
        freq = self._recipe.aggregate_freq
        some = range(number * freq, min((number + 1) * freq, self._steps))
        if any(run.decay != "none" for run in self._runs):
            progress = (epoch * self._rounds + number) / (self._rounds * self._recipe.epochs)
            self._stack.decay(self._of_models([run.rate_at(progress) for run in self._runs]))
        losses = torch.stack([self._training.step(step) for step in some]).mean(0)
        samples = torch.from_numpy(sizes[some.start : some.stop].sum(0)).to(self._device, torch.float64)
        for run, job, own, plan in zip(self._runs, self._jobs, self._own, self._plans, strict=True):
            job.samples, job.losses = samples[own], losses[own]
            run.method.end_round(job, plan[epoch][number])
        weights = [value.detach() for value in self._stack.weights.values()]
        torch._foreach_lerp_(self._mean, weights, _PART_OF_ROUND)

    def _of_models(self, values: Sequence[_Value]) -> list[_Value]:
        """A value of each run, for each of its models."""
        return [value for value in values for _ in range(self._parties)]

    def _accuracies(self, rows: int) -> list[float]:
        x, y = self._data.x_test[:rows], self._data.y_test[:rows]
        return accuracies(self._stack, x, y, len(self._runs), self._parties)


class _Gradients(Mapping[str, Tensor]):
    """Gradients of a run's parties, as the last step left them."""

    def __init__(self, stack: Stack, own: slice) -> None:
        self._stack, self._own = stack, own

    def __getitem__(self, name: str) -> Tensor:
        gradient = self._stack.weights[name].grad
        assert gradient is not None  # every parameter takes part
        return gradient[self._own]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stack.weights)

    def __len__(self) -> int:
        return len(self._stack.weights)


def _job(
    stack: Stack,
    masks: Mapping[str, Tensor],
    factors: Mapping[str, Tensor],
    run: Run,
    own: slice,
    epochs: int,
) -> Job:
    power = run.method.step_power
    return Job(
        {name: value.detach()[own] for name, value in stack.weights.items()},
        {name: mask[own] for name, mask in masks.items()},
        _Gradients(stack, own),
        run.seed,
        {name: factor[own] for name, factor in factors.items()} if power else {},
        power,
        epochs,
    )


def _plan(run: Run, job: Job, recipe: Recipe, steps: int) -> list[list[Round]]:
    settings = run.settings or PruneSettings(prune_end_rate=1)
    return list(
        plan_epochs(
            settings,
            job.sizes,
            job.sizes,
            trained=0,
            epochs=recipe.epochs,
            steps=steps,
            aggregate_freq=recipe.aggregate_freq,
        )
    )
