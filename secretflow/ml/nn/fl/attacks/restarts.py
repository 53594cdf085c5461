"""Many random starts of many observations, run side by side; the best match of each observation counts."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.lbfgs import Evaluate
from secretflow.ml.nn.fl.attacks.observation import Progress, Reconstruction, Snapshot

START_STRIDE = 7919
"""Between the seeds of two restarts: a prime, so that neighbouring seeds of a user do not share starts."""


class Optimizer(Protocol):
    """Independent runs of a minimiser side by side; :class:`~.lbfgs.BatchedLBFGS` is one."""

    points: torch.Tensor
    losses: torch.Tensor
    ended: torch.Tensor

    def step(self, evaluate: Evaluate) -> None:
        """Makes one step of each run."""

    def replace(self, runs: Sequence[int], start: torch.Tensor) -> None:
        """Starts some runs anew."""

    def keep(self, runs: Sequence[int]) -> None:
        """Goes on with these runs only."""


class Searched(Protocol):
    """What is brought down, as a function of guesses; :class:`~.objective.Objective` is one."""

    device: torch.device
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Numbers in one guess."""

    def split(self, guess: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The rows of a guess, and the scores of their labels, if they are guessed."""

    def bind(self, rows: Sequence[int]) -> Evaluate:
        """The losses of guesses and their gradients, each beside its own observation."""


@dataclass(frozen=True)
class SearchSettings:
    """How hard to try.

    Attributes:
        iterations: optimiser steps of one restart, at least 1.
        restarts: random starts of one observation, at least 1. One that reaches ``loss_reached`` ends the
            attack on its observation, else the one of the smallest matching loss wins.
        loss_reached: matching loss that counts as a match, at least 0; the attack says relative to what.
        patience: a restart is given up when so many steps in a row have not brought its smallest matching
            loss down by 1 percent, at least 1.
        record_every: steps between two frames of the history, at least 1; None keeps first and last only.
        lanes: restarts that run side by side, at least 1.
        seed: of the random starts; restart ``r`` starts the same however many there are.

    Raises:
        ValueError: a number is out of its range.
    """

    iterations: int = 300
    restarts: int = 4
    loss_reached: float = 1e-9
    patience: int = 50
    record_every: int | None = None
    lanes: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        for name in ("iterations", "restarts", "patience", "lanes"):
            _validate.integer(name, getattr(self, name), 1)
        _validate.integer("record_every", self.record_every, 1, optional=True)
        _validate.integer("seed", self.seed, 0)
        _validate.number("loss_reached", self.loss_reached, at_least=0)


@dataclass
class _Lane:
    """One restart under way."""

    observation: int
    restart: int
    start: torch.Tensor
    iteration: int = 0
    smallest: float = math.inf
    improved_at: int = 0
    best: torch.Tensor | None = None
    best_at: int = 0
    frames: list[Snapshot] = field(default_factory=list)

    def note(self, point: torch.Tensor, loss: float) -> None:
        """Takes the result of a step."""
        self.iteration += 1
        if loss < 0.99 * self.smallest:
            self.improved_at = self.iteration
        if loss < self.smallest:
            self.smallest, self.best, self.best_at = loss, point.clone(), self.iteration


@dataclass
class _Answer:
    """What is known about one observation."""

    lane: _Lane | None = None
    loss: float = math.inf
    diverged: int = 0
    matched: bool = False
    seconds: float = 0.0


def search(
    objective: Searched,
    observations: int,
    make_start: Callable[[int], torch.Tensor],
    make_optimizer: Callable[[torch.Tensor], Optimizer],
    settings: SearchSettings,
    loss_reached: Sequence[float],
    labels_of: Callable[[int, torch.Tensor], torch.Tensor],
    progress: Progress | None = None,
) -> list[Reconstruction]:
    """Attacks observations together.

    Lanes that become free take the next restart, first restarts of all observations before second ones; the
    restarts of an observation that has its match are dropped. A restart that meets NaN or infinity has
    failed and is counted.

    Args:
        objective: of the observations.
        observations: how many there are.
        make_start: from the number of a restart to its first guess, (objective.size,).
        make_optimizer: from first points to an optimiser.
        settings: how hard to try.
        loss_reached: for each observation the loss that counts as a match.
        labels_of: from an observation's number and a guess to int64 labels of shape (batch,).
        progress: called after each step.

    Returns:
        For each observation the reconstruction of the smallest matching loss. If every restart diverged it
        is the first guess of the first restart, with an infinite loss.
    """
    pool = _Pool(objective, observations, make_start, make_optimizer, settings, loss_reached)
    while pool.lanes:
        pool.step()
        if progress is not None:
            progress(pool.done())
    return [pool.reconstruction(number, labels_of) for number in range(observations)]


class _Pool:
    """The lanes, and the restarts that wait for one."""

    def __init__(
        self,
        objective: Searched,
        observations: int,
        make_start: Callable[[int], torch.Tensor],
        make_optimizer: Callable[[torch.Tensor], Optimizer],
        settings: SearchSettings,
        loss_reached: Sequence[float],
    ) -> None:
        self.answers = [_Answer() for _ in range(observations)]
        self._objective, self._settings, self._loss_reached = objective, settings, loss_reached
        starts = [
            make_start(restart).to(objective.device, objective.dtype) for restart in range(settings.restarts)
        ]
        self._first_start = starts[0]
        self._waiting = deque(
            _Lane(number, restart, start)
            for restart, start in enumerate(starts)
            for number in range(observations)
        )
        self._all = len(self._waiting)
        self._clock = time.perf_counter()
        self.lanes = [self._waiting.popleft() for _ in range(min(settings.lanes, self._all))]
        self._optimizer = make_optimizer(torch.stack([lane.start for lane in self.lanes]))
        self._evaluate = objective.bind([lane.observation for lane in self.lanes])
        self._record_starts(self.lanes)

    def done(self) -> float:
        """Part of the work that is done."""
        under_way = sum(1 - lane.iteration / self._settings.iterations for lane in self.lanes)
        return 1 - (len(self._waiting) + under_way) / self._all

    def step(self) -> None:
        """One step of all lanes; those that are at their end make room."""
        self._optimizer.step(self._evaluate)
        losses = self._optimizer.losses.tolist()
        sound = self._optimizer.points.isfinite().all(dim=1).tolist()
        stopped = self._optimizer.ended.tolist()
        self._share_time()
        over = []
        for place, lane in enumerate(self.lanes):
            failed = not (sound[place] and math.isfinite(losses[place]))
            if failed:
                self.answers[lane.observation].diverged += 1
            else:
                self._note(lane, place, losses[place])
            if failed or self._finish(lane, losses[place], stopped[place]):
                over.append(place)
        matched = [place for place, lane in enumerate(self.lanes) if self.answers[lane.observation].matched]
        if over or matched:
            self._refill(sorted({*over, *matched}))

    def reconstruction(
        self, number: int, labels_of: Callable[[int, torch.Tensor], torch.Tensor]
    ) -> Reconstruction:
        """The best match of an observation."""
        answer = self.answers[number]
        lane = answer.lane or _Lane(number, 0, self._first_start)
        point = lane.start if lane.best is None else lane.best
        images = self._objective.split(point)[0]
        frames = [frame for frame in lane.frames if frame.iteration < lane.best_at]
        return Reconstruction(
            images=images,
            labels=labels_of(number, point),
            loss=answer.loss,
            history=(*frames, Snapshot(lane.best_at, answer.loss, images)),
            iteration=lane.best_at,
            restart=lane.restart,
            diverged=answer.diverged,
            seconds=answer.seconds,
        )

    def _share_time(self) -> None:
        now = time.perf_counter()
        for lane in self.lanes:
            self.answers[lane.observation].seconds += (now - self._clock) / len(self.lanes)
        self._clock = now

    def _note(self, lane: _Lane, place: int, loss: float) -> None:
        point = self._optimizer.points[place]
        lane.note(point, loss)
        every = self._settings.record_every
        if every is not None and lane.iteration % every == 0:
            self._record(lane, point, loss)

    def _record(self, lane: _Lane, point: torch.Tensor, loss: float) -> None:
        lane.frames.append(Snapshot(lane.iteration, loss, self._objective.split(point)[0].clone()))

    def _record_starts(self, lanes: Sequence[_Lane]) -> None:
        losses, _ = self._objective.bind([lane.observation for lane in lanes])(
            torch.stack([lane.start for lane in lanes])
        )
        for lane, loss in zip(lanes, losses.tolist(), strict=True):
            self._record(lane, lane.start, loss)

    def _finish(self, lane: _Lane, loss: float, stopped: bool) -> bool:
        """Whether a restart is at its end; if so, it stands for its observation if it is the best so far."""
        settings, answer = self._settings, self.answers[lane.observation]
        matched = lane.smallest <= self._loss_reached[lane.observation]
        patience_lost = lane.iteration - lane.improved_at >= settings.patience
        if not (matched or stopped or patience_lost or lane.iteration >= settings.iterations):
            return False
        if lane.smallest < answer.loss:
            answer.lane, answer.loss = lane, lane.smallest
        answer.matched |= matched
        return True

    def _refill(self, over: list[int]) -> None:
        """Gives the places of lanes that are over to restarts that wait, or does away with them."""
        fresh: list[_Lane] = []
        while self._waiting and len(fresh) < len(over):
            lane = self._waiting.popleft()
            if not self.answers[lane.observation].matched:
                fresh.append(lane)
        taken = over[: len(fresh)]
        for place, lane in zip(taken, fresh, strict=True):
            self.lanes[place] = lane
        if fresh:
            self._record_starts(fresh)
            self._optimizer.replace(taken, torch.stack([lane.start for lane in fresh]))
        empty = set(over[len(fresh) :])
        kept = [place for place in range(len(self.lanes)) if place not in empty]
        self.lanes = [self.lanes[place] for place in kept]
        if self.lanes:
            if empty:
                self._optimizer.keep(kept)
            self._evaluate = self._objective.bind([lane.observation for lane in self.lanes])
