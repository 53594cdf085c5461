"""Attackers of an audit that search, on as few observations and with as few steps as time allows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from secretflow.ml.nn.fl.attacks import (
    DLGSettings,
    GaussianPrior,
    InvertingSettings,
    Observation,
    PriorSettings,
    Reconstruction,
    dlg_attack,
    fit_gaussian,
    inverting_attack,
    prior_attack,
)
from secretflow.ml.nn.fl.attacks.objective import Objective
from secretflow.ml.nn.fl.attacks.observation import Progress
from secretflow.ml.nn.fl.audit.attempt import Attempt, Findings, OutOfTimeError, all_of
from secretflow.ml.nn.fl.audit.defences import relative_noise

Search = Callable[[Sequence[Observation], int, Progress | None], list[Reconstruction]]
"""From observations, steps and progress to what came back."""


_MOVES = 20
"""In a step of each of these attacks, of one evaluation at least."""
_ENOUGH_SECONDS = 5.0
"""An evaluation that takes so long needs no second one to say how long one takes."""


def _searched(attempt: Attempt, search: Search, steps: int, least: int) -> Findings:
    """Searches on as many observations, with as many steps, as the time allows.

    Args:
        attempt: what is attacked.
        search: the attack.
        steps: of a search that is not short of time.
        least: steps below which it is not worth trying.

    Raises:
        OutOfTimeError: there is not even time for the least steps, or they took twice the time.
    """
    observations = attempt.scene.observations
    # Few evaluations tell who has no chance, before a step of many is made.
    each = _MOVES * _seconds_of_an_evaluation(observations[0])
    if least * each <= attempt.seconds:
        started = time.perf_counter()
        search(observations[:1], 1, None)
        each = time.perf_counter() - started
    steps = min(steps, int(attempt.seconds / each))
    if steps < least:
        raise OutOfTimeError((least + 1) * each)
    count = max(1, min(len(observations), 20, int(attempt.seconds / each / steps)))
    end = time.perf_counter() + 2 * attempt.seconds

    def progress(part: float) -> None:
        attempt.progress(part)
        if time.perf_counter() > end:
            raise OutOfTimeError(None)

    found = search(observations[:count], steps, progress)
    return all_of(found, {"observations": count, "of": len(observations), "steps": steps})


def _seconds_of_an_evaluation(observation: Observation) -> float:
    """Of a guess and the gradient of its match, in which a search spends nearly all its time."""
    objective = Objective([observation])
    evaluate, seconds = objective.bind([0]), 0.0
    guess = torch.zeros(1, objective.size, device=objective.device, dtype=objective.dtype)
    for _ in range(2):  # the first one takes longer
        started = time.perf_counter()
        float(evaluate(guess)[0])  # waits for a GPU
        seconds = time.perf_counter() - started
        if seconds > _ENOUGH_SECONDS:
            break
    return seconds


def prior_and_noise(public: torch.Tensor, bits: int | None) -> tuple[GaussianPrior, float]:
    """The Gaussian of public rows that suits a search, and the noise that the search expects.

    What a Gaussian of a lower rank leaves over shows in an exact gradient, and the search would explain it by
    the rest. Under the noise of rounding it does not show.

    Args:
        public: float of shape (rows, ...), at least two.
        bits: of a rounded coordinate of what is attacked; None is not rounded.

    Returns:
        The Gaussian, and :attr:`PriorSettings.noise`.
    """
    if bits is None:
        return fit_gaussian(public, rank=public[0].numel()), PriorSettings().noise
    return fit_gaussian(public), relative_noise(bits)


def prior_search(attempt: Attempt) -> Findings:
    prior, noise = prior_and_noise(attempt.public.x, attempt.scene.bits)

    def search(some: Sequence[Observation], steps: int, progress: Progress | None) -> list[Reconstruction]:
        return prior_attack(some, prior, PriorSettings(steps, noise=noise, seed=attempt.seed), progress)

    return _searched(attempt, search, PriorSettings().iterations, 10)


def search_by_direction(attempt: Attempt) -> Findings:
    low, high = attempt.scene.observations[0].bounds
    rate = 0.1 * (high - low if math.isfinite(high - low) else 1.0)

    def search(some: Sequence[Observation], steps: int, progress: Progress | None) -> list[Reconstruction]:
        settings = InvertingSettings(steps, learning_rate=rate, seed=attempt.seed)
        return inverting_attack(some, settings, progress)

    return _searched(attempt, search, InvertingSettings().iterations, 20)


def search_by_distance(attempt: Attempt) -> Findings:
    low, high = attempt.scene.observations[0].bounds
    narrow = partial(DLGSettings, start_mean=(low + high) / 2, start_deviation=0.1 * (high - low))
    if not math.isfinite(high - low):
        narrow = partial(DLGSettings)

    def search(some: Sequence[Observation], steps: int, progress: Progress | None) -> list[Reconstruction]:
        settings = narrow(steps, 2, patience=10, seed=attempt.seed)
        return dlg_attack(some, settings, progress)

    return _searched(attempt, search, 100, 20)
