"""The attackers that an audit tries, strongest first; each is an entry of ``ATTACKERS``.

An attacker refuses a scene that it cannot attack with a ValueError, whose message the report prints.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from secretflow.ml.nn.fl.attacks import (
    LearnedSettings,
    LocalPrior,
    Observation,
    PublicRows,
    closed_form_attack,
    read_average,
)
from secretflow.ml.nn.fl.attacks.candidates import compare_candidates
from secretflow.ml.nn.fl.attacks.cocktail import unmix_rows
from secretflow.ml.nn.fl.attacks.idlg import labels_or_a_guess
from secretflow.ml.nn.fl.attacks.inverter import attack_with
from secretflow.ml.nn.fl.attacks.learned import learn
from secretflow.ml.nn.fl.attacks.membership import candidate_scores
from secretflow.ml.nn.fl.attacks.neurons import read_neurons
from secretflow.ml.nn.fl.attacks.spear import SpearSettings, spear_attack
from secretflow.ml.nn.fl.attacks.tokens import token_attack
from secretflow.ml.nn.fl.audit.attempt import Attacker, Attempt, Findings, Guess, Learned, all_of
from secretflow.ml.nn.fl.audit.searches import prior_search, search_by_direction, search_by_distance


def _tokens(attempt: Attempt) -> Findings:
    return all_of(token_attack(attempt.scene.observations))


def _closed_form(attempt: Attempt) -> Findings:
    prior = LocalPrior(attempt.public.x)
    return all_of(closed_form_attack(attempt.scene.observations, prior=prior))


def _read_off(attempt: Attempt) -> Findings:
    readings = [read_average(observation) for observation in attempt.scene.observations]
    return Findings(tuple(Guess(reading.images.float(), reading.labels) for reading in readings))


def _neurons(attempt: Attempt) -> Findings:
    prior = LocalPrior(attempt.public.x)
    found = [read_neurons(observation, prior) for observation in attempt.scene.observations]
    return Findings(tuple(Guess(rows.float(), None) for rows in found))


def _exact(attempt: Attempt) -> Findings:
    observations = attempt.scene.observations
    settings, end = SpearSettings(seed=attempt.seed), time.perf_counter() + attempt.seconds
    found: list[Guess] = []
    while len(found) < len(observations) and (left := end - time.perf_counter()) > 0:
        hard = replace(settings, seconds=left / (len(observations) - len(found)))
        found.append(Guess(spear_attack(observations[len(found)], hard).float(), None))
    used, there = len(found), len(observations)
    spared = {"observations": used, "of": there, "steps": settings.starts}
    return Findings(tuple(found), effort=spared if used < there else {})


def _unmixed(attempt: Attempt) -> Findings:
    prior = LocalPrior(attempt.public.x)
    found = [unmix_rows(observation, prior, attempt.seed) for observation in attempt.scene.observations]
    return Findings(tuple(Guess(rows.float(), None) for rows in found))


def _fewer(learned: Learned, public: PublicRows) -> dict[str, int]:
    used, there = len(learned.gradients.seen), len(public.x)
    return {"public": used, "of": there} if used < there else {}


def _ridge(attempt: Attempt) -> Findings:
    learned = attempt.row_gradients()
    found = attack_with(learned.regression, attempt.scene.observations)
    return all_of(found, _fewer(learned, attempt.public))


def _activations(attempt: Attempt) -> Findings:
    seen, learned = attempt.activations()
    return all_of(attack_with(learned.regression, seen), _fewer(learned, attempt.public))


def _learned(attempt: Attempt) -> Findings:
    seen, own = _better(attempt)
    known, settings = own.gradients, LearnedSettings(seed=attempt.seed)
    parts = own.regression, known.features, known.seen, known.public
    inverter = learn(*parts, seen[0].classes, settings, attempt.progress)
    return all_of(attack_with(inverter, seen), _fewer(own, attempt.public))


def _better(attempt: Attempt) -> tuple[Sequence[Observation], Learned]:
    """Gradients or activations: that of which a regression is further on public rows that were held out."""
    plain = attempt.scene.observations, attempt.row_gradients()
    try:
        given = attempt.activations()
    except ValueError:  # no layer that shows what it was given
        return plain
    return given if given[1].regression.error < plain[1].regression.error else plain


def _candidates(attempt: Attempt) -> Findings:
    learned = attempt.row_gradients()
    attacked = 2 * attempt.scene.numbers.numel()  # the first rows
    among = min(len(attempt.rows), max(attacked, int(attempt.seconds / learned.seconds)))
    rows = PublicRows(attempt.rows.x[:among], attempt.rows.y[:among])
    observations = attempt.scene.observations
    scores = (
        compare_candidates(observations, rows)
        if observations[0].batch_size == 1
        else candidate_scores(learned.gradients, observations, rows, attempt.seed)
    )
    return Findings(scores=scores, among=among, effort=_fewer(learned, attempt.public))


ATTACKERS: tuple[Attacker, ...] = (
    Attacker("tokens", False, _tokens, ("tokens",), together=False),
    Attacker("closed form", False, _closed_form, together=False),
    Attacker("rows read off", False, _read_off, together=True),
    Attacker("rows of neurons", False, _neurons, together=True),
    Attacker("exact batch", False, _exact, together=True),
    Attacker("cocktail party", False, _unmixed, ("images",), together=True),
    Attacker("ridge regression", False, _ridge, together=False),
    Attacker("regression on activations", False, _activations, together=False),
    Attacker("candidates", False, _candidates, ("images", "table", "tokens")),
    Attacker("learned inverter", True, _learned, together=False),
    Attacker("Gaussian prior", True, prior_search, refuses=labels_or_a_guess),
    Attacker("Inverting Gradients", True, search_by_direction, refuses=labels_or_a_guess),
    Attacker("DLG", True, search_by_distance),
)
"""In the order in which they are tried; those that search come when all others are through all scenes."""
