"""The attackers that an audit tries, strongest first; each is an entry of ``ATTACKERS``.

An attacker refuses a scene that it cannot attack with a ValueError, whose message the report prints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch

from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.attacks import (
    DLGSettings,
    InvertingSettings,
    LearnedSettings,
    Observation,
    PriorSettings,
    PublicRows,
    Reconstruction,
    closed_form_attack,
    dlg_attack,
    fit_gaussian,
    inverting_attack,
    prior_attack,
    read_average,
)
from secretflow.ml.nn.fl.attacks.candidates import compare_candidates
from secretflow.ml.nn.fl.attacks.inverter import Inverter, attack_with
from secretflow.ml.nn.fl.attacks.learned import learn
from secretflow.ml.nn.fl.attacks.membership import candidate_scores
from secretflow.ml.nn.fl.attacks.neurons import read_neurons
from secretflow.ml.nn.fl.attacks.observation import Progress
from secretflow.ml.nn.fl.attacks.ridge import regress
from secretflow.ml.nn.fl.attacks.row_gradients import RowGradients, learn_row_gradients
from secretflow.ml.nn.fl.attacks.spear import SpearSettings, spear_attack
from secretflow.ml.nn.fl.attacks.tokens import token_attack
from secretflow.ml.nn.fl.audit.rows import Rows
from secretflow.ml.nn.fl.audit.scenes import Scene

_FEATURES = 1500
_WARM, _TIMED = 8, 128
"""Public rows on which the speed of the net is taken, before and when."""


@dataclass(frozen=True)
class Guess:
    """What came back of one observation.

    Attributes:
        images: rows, float of shape (found, *shape of a row), in no order; fewer than there were is allowed.
        labels: that were read with them, int64 of shape (found,), -1 is not known; None if none were.
    """

    images: torch.Tensor
    labels: torch.Tensor | None


@dataclass(frozen=True)
class Findings:
    """What an attacker says of the first observations of a scene.

    Attributes:
        guesses: of each; () of an attacker who picks candidates.
        scores: of each the candidates', float of shape (observations, candidates), highest are in it; None of
            an attacker who rebuilds rows.
        among: how many candidates have a score, the first ones; None is all.
        effort: what was spared of the usual effort: "public" rows or "observations" that were used, "of" how
            many, and "steps" of a search; empty if nothing was.
    """

    guesses: tuple[Guess, ...] = ()
    scores: torch.Tensor | None = None
    among: int | None = None
    effort: Mapping[str, int] = field(default_factory=dict)

    @property
    def observations(self) -> int:
        """How many were attacked."""
        return len(self.guesses) if self.scores is None else len(self.scores)


@dataclass
class Attempt:
    """What an attacker is given.

    Attributes:
        scene: what is seen.
        rows: candidates, without saying which are attacked.
        public: rows that the attacker has.
        seconds: that it may take, about.
        seed: of what it draws.
        progress: called with the part that is done.
        learned: by the name of a scene gradients of public rows, once computed, and the seconds of each.
    """

    scene: Scene
    rows: Rows
    public: PublicRows
    seconds: float
    seed: int
    progress: Progress
    learned: dict[str, tuple[RowGradients, float]] = field(default_factory=dict)

    def row_gradients(self) -> tuple[RowGradients, float]:
        """Gradients of as many public rows as half of the time allows, and the seconds of each."""
        name = self.scene.name
        if name not in self.learned:
            first, public = self.scene.observations[0], self.public
            for count in (_WARM, _TIMED):  # the first call takes longer
                few = PublicRows(public.x[:count], public.y[:count])
                started = time.perf_counter()
                learn_row_gradients(first, few, _FEATURES, self.seed, self.scene.distort)
            each = (time.perf_counter() - started) / len(few.x)
            count = max(_TIMED, min(len(public.x), int(self.seconds / 2 / each)))
            some = PublicRows(public.x[:count], public.y[:count])
            learned = learn_row_gradients(first, some, _FEATURES, self.seed, self.scene.distort)
            self.learned[name] = learned, each
        return self.learned[name]


@dataclass(frozen=True)
class Attacker:
    """An entry.

    Attributes:
        name: of the attack; the report's words for it are in :mod:`.words`.
        searches: whether it takes long; then it is tried on few observations, when all others are through.
        run: attacks a scene.
        kinds: of rows.
        together: whether it takes several rows in an observation; None is both.
    """

    name: str
    searches: bool
    run: Callable[[Attempt], Findings]
    kinds: tuple[str, ...] = ("images", "table")
    together: Literal[True, False] | None = None


def _all(results: Sequence[Reconstruction], effort: Mapping[str, int] | None = None) -> Findings:
    return Findings(tuple(Guess(result.images, result.labels) for result in results), effort=effort or {})


def _tokens(attempt: Attempt) -> Findings:
    return _all(token_attack(attempt.scene.observations))


def _closed_form(attempt: Attempt) -> Findings:
    prior = fit_gaussian(attempt.public.x)
    return _all(closed_form_attack(attempt.scene.observations, prior=prior))


def _read_off(attempt: Attempt) -> Findings:
    readings = [read_average(observation) for observation in attempt.scene.observations]
    return Findings(tuple(Guess(reading.images.float(), reading.labels) for reading in readings))


def _neurons(attempt: Attempt) -> Findings:
    prior = fit_gaussian(attempt.public.x)
    found = [read_neurons(observation, prior) for observation in attempt.scene.observations]
    return Findings(tuple(Guess(rows.float(), None) for rows in found))


def _exact(attempt: Attempt) -> Findings:
    observations = attempt.scene.observations
    settings, end = SpearSettings(seed=attempt.seed), time.perf_counter() + attempt.seconds
    found: list[Guess] = []
    while len(found) < len(observations) and (not found or time.perf_counter() < end):
        found.append(Guess(spear_attack(observations[len(found)], settings).float(), None))
    used, there = len(found), len(observations)
    spared = {"observations": used, "of": there, "steps": settings.draws}
    return Findings(tuple(found), effort=spared if used < there else {})


def _fewer(learned: RowGradients, public: PublicRows) -> dict[str, int]:
    used, there = len(learned.seen), len(public.x)
    return {"public": used, "of": there} if used < there else {}


def _inverted(attempt: Attempt, make: Callable[[RowGradients], Inverter]) -> Findings:
    learned, _ = attempt.row_gradients()
    found = attack_with(make(learned), attempt.scene.observations)
    return _all(found, _fewer(learned, attempt.public))


def _ridge(attempt: Attempt) -> Findings:
    seed = attempt.seed
    return _inverted(attempt, lambda own: regress(own.features, own.seen, own.public, seed))


def _learned(attempt: Attempt) -> Findings:
    classes, settings = attempt.scene.observations[0].classes, LearnedSettings(seed=attempt.seed)
    progress = attempt.progress
    return _inverted(
        attempt, lambda own: learn(own.features, own.seen, own.public, classes, settings, progress)
    )


def _candidates(attempt: Attempt) -> Findings:
    learned, each = attempt.row_gradients()
    attacked = 2 * attempt.scene.numbers.numel()  # the first rows
    among = min(len(attempt.rows), max(attacked, int(attempt.seconds / each)))
    rows = PublicRows(attempt.rows.x[:among], attempt.rows.y[:among])
    observations = attempt.scene.observations
    scores = (
        compare_candidates(observations, rows)
        if observations[0].batch_size == 1
        else candidate_scores(learned, observations, rows, attempt.seed)
    )
    return Findings(scores=scores, among=among, effort=_fewer(learned, attempt.public))


Search = Callable[[Sequence[Observation], int, Progress | None], list[Reconstruction]]
"""From observations, steps and progress to what came back."""


class _OutOfTimeError(Exception):
    """A search took twice the time that it was given."""


def _searched(attempt: Attempt, search: Search, steps: int, least: int) -> Findings:
    """Searches on as many observations, with as many steps, as the time allows.

    Args:
        attempt: what is attacked.
        search: the attack.
        steps: of a search that is not short of time.
        least: steps below which it is not worth trying.
    """
    observations = attempt.scene.observations
    started = time.perf_counter()
    search(observations[:1], 1, None)
    each = time.perf_counter() - started
    steps = min(steps, int(attempt.seconds / each))
    if steps < least:
        raise ArgumentError(f"minutes must be more for a search that takes {each:.0f} s a step, got too few")
    count = max(1, min(len(observations), 20, int(attempt.seconds / each / steps)))
    end = time.perf_counter() + 2 * attempt.seconds

    def progress(part: float) -> None:
        attempt.progress(part)
        if time.perf_counter() > end:
            raise _OutOfTimeError

    try:
        found = search(observations[:count], steps, progress)
    except _OutOfTimeError:
        raise ArgumentError("minutes must be more for this search, got too few") from None
    return _all(found, {"observations": count, "of": len(observations), "steps": steps})


def _prior(attempt: Attempt) -> Findings:
    prior, bits = fit_gaussian(attempt.public.x), attempt.scene.bits
    noise = PriorSettings().noise if bits is None else 1 / (2 ** (bits - 1) - 1) / math.sqrt(6)

    def search(some: Sequence[Observation], steps: int, progress: Progress | None) -> list[Reconstruction]:
        return prior_attack(some, prior, PriorSettings(steps, noise=noise, seed=attempt.seed), progress)

    return _searched(attempt, search, PriorSettings().iterations, 10)


def _inverting(attempt: Attempt) -> Findings:
    low, high = attempt.scene.observations[0].bounds
    rate = 0.1 * (high - low if math.isfinite(high - low) else 1.0)

    def search(some: Sequence[Observation], steps: int, progress: Progress | None) -> list[Reconstruction]:
        settings = InvertingSettings(steps, learning_rate=rate, seed=attempt.seed)
        return inverting_attack(some, settings, progress)

    return _searched(attempt, search, InvertingSettings().iterations, 20)


def _dlg(attempt: Attempt) -> Findings:
    low, high = attempt.scene.observations[0].bounds
    narrow = partial(DLGSettings, start_mean=(low + high) / 2, start_deviation=0.1 * (high - low))
    if not math.isfinite(high - low):
        narrow = partial(DLGSettings)

    def search(some: Sequence[Observation], steps: int, progress: Progress | None) -> list[Reconstruction]:
        settings = narrow(steps, 2, patience=10, seed=attempt.seed)
        return dlg_attack(some, settings, progress)

    return _searched(attempt, search, 100, 20)


ATTACKERS: tuple[Attacker, ...] = (
    Attacker("tokens", False, _tokens, ("tokens",), together=False),
    Attacker("closed form", False, _closed_form, together=False),
    Attacker("rows read off", False, _read_off, together=True),
    Attacker("rows of neurons", False, _neurons, together=True),
    Attacker("exact batch", False, _exact, together=True),
    Attacker("ridge regression", False, _ridge, together=False),
    Attacker("candidates", False, _candidates, ("images", "table", "tokens")),
    Attacker("learned inverter", True, _learned, together=False),
    Attacker("Gaussian prior", True, _prior, together=False),
    Attacker("Inverting Gradients", True, _inverting),
    Attacker("DLG", True, _dlg),
)
"""In the order in which they are tried; those that search come when all others are through all scenes."""
