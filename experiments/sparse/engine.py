"""Trains many runs at once: all parties of all runs are one stack of models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from experiments.sparse.batches import epoch_batches
from experiments.sparse.job import Job
from experiments.sparse.methods import Method
from experiments.sparse.stack import Stack
from experiments.sparse.stepping import Steps
from secretflow.ml.nn.fl.plan import Round, plan_epochs
from secretflow.ml.nn.fl.pruning import PruneSettings

_EVALUATED_AT_ONCE = 6_000_000
"""Numbers of the features that are evaluated in one pass; bounds the memory."""

_LOOKED_AT = 5_000
"""Test rows that are looked at after an epoch, the first ones; after the last one all are."""


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
    """

    curve: list[tuple[float, float, float, float]]
    weights: Mapping[str, Tensor]
    mean_accuracy: float = 0.0


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
    parties = len(runs[0].held)
    rows = sum(len(part) for part in runs[0].held)
    rate = recipe.batch_size * parties / rows
    steps = math.ceil(1 / rate)
    stack = Stack(
        build,
        [run.seed for run in runs],
        parties,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        device=device,
        matrices=matrices,
    )
    prunable = [
        name for name, value in stack.weights.items() if value.dim() > 2
    ]  # one dimension is the stack
    masks = {name: torch.ones_like(stack.weights[name].detach()) for name in prunable}
    exponents = [run.method.exponent for run in runs for _ in range(parties)]
    stack.reparametrise(exponents, prunable)
    scaled = any(run.method.step_power or run.rate_at(0.5) != 1 for run in runs)
    factors = stack.scale_steps([run.rate for run in runs for _ in range(parties)]) if scaled else {}
    decays = any(run.decay != "none" for run in runs)
    jobs = [
        _job(stack, masks, factors, run, slice(k * parties, (k + 1) * parties)) for k, run in enumerate(runs)
    ]
    rounds = math.ceil(steps / recipe.aggregate_freq)
    plans = [_plan(run, job, recipe, steps) for run, job in zip(runs, jobs, strict=True)]
    for run, job in zip(runs, jobs, strict=True):
        run.method.start(job, rounds * recipe.epochs)
    training = Steps(stack, data.x, data.y, masks)
    held = [part for run in runs for part in run.held]
    seeds = [run.seed for run in runs for _ in run.held]
    mean = {name: value.detach().clone() for name, value in stack.weights.items()}
    curves: list[list[tuple[float, float, float, float]]] = [[] for _ in runs]
    for epoch in range(recipe.epochs):
        batches, sizes = epoch_batches(held, seeds, rate, steps, epoch, device)
        training.begin_epoch(batches)
        for number in range(rounds):
            some = range(number * recipe.aggregate_freq, min((number + 1) * recipe.aggregate_freq, steps))
            if decays:
                progress = (epoch * rounds + number) / (rounds * recipe.epochs)
                stack.decay([run.rate_at(progress) for run in runs for _ in range(parties)])
            losses = torch.stack([training.step(step) for step in some]).mean(0)
            samples = torch.from_numpy(sizes[some.start : some.stop].sum(0)).to(device, torch.float64)
            for k, (run, job) in enumerate(zip(runs, jobs, strict=True)):
                own = slice(k * parties, (k + 1) * parties)
                job.samples, job.losses = samples[own], losses[own]
                run.method.end_round(job, plans[k][epoch][number])
            torch._foreach_lerp_(list(mean.values()), [v.detach() for v in stack.weights.values()], 0.1)
        last = epoch + 1 == recipe.epochs
        accuracies = _accuracies(stack, data, len(runs), parties, len(data.y_test) if last else _LOOKED_AT)
        for curve, job, accuracy in zip(curves, jobs, accuracies, strict=True):
            curve.append((accuracy, job.uploaded, job.density(), float(job.losses.mean())))
    outcomes = [
        Outcome(curve, {name: value.clone() for name, value in job.weights.items()})
        for curve, job in zip(curves, jobs, strict=True)
    ]
    for name, value in mean.items():
        stack.weights[name].data.copy_(value)
    stack.zero_pruned(masks)
    for outcome, accuracy in zip(
        outcomes, _accuracies(stack, data, len(runs), parties, len(data.y_test)), strict=True
    ):
        outcome.mean_accuracy = accuracy
    return outcomes


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
    stack: Stack, masks: Mapping[str, Tensor], factors: Mapping[str, Tensor], run: Run, own: slice
) -> Job:
    power = run.method.step_power
    return Job(
        {name: value.detach()[own] for name, value in stack.weights.items()},
        {name: mask[own] for name, mask in masks.items()},
        _Gradients(stack, own),
        run.seed,
        {name: factor[own] for name, factor in factors.items()} if power else {},
        power,
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


@torch.no_grad()
def _accuracies(stack: Stack, data: Data, runs: int, parties: int, rows: int) -> list[float]:
    """Accuracy of each run in percent, of its parties' models on a part of the test rows each."""
    rows = min(rows, len(data.y_test))
    size = math.ceil(rows / parties)
    # Dealt out by turns; where that does not come out even, the last parties have fewer.
    numbers = torch.arange(size * parties, device=data.y_test.device).view(size, parties).T
    at_once = max(1, _EVALUATED_AT_ONCE // (runs * parties * data.x_test[0].numel()))
    right = torch.zeros(runs, device=numbers.device)
    for first in range(0, size, at_once):
        some = numbers[:, first : first + at_once]
        looked_at = some.clamp_max(rows - 1)
        x = data.x_test[looked_at].repeat(runs, *[1] * (data.x_test.dim()))
        found = stack.forward(x).argmax(2).view(runs, parties, -1)
        right += ((found == data.y_test[looked_at]) & (some < rows)).sum((1, 2))
    return [100 * float(value) / rows for value in right.tolist()]
