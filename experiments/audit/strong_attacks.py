"""Attackers of the strong settings: each attacks observations of a setting and gives a row of scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from experiments.audit.strong_scores import CANDIDATES, Material, picked, score
from secretflow.ml.nn.fl.attacks import (
    DLGSettings,
    InvertingSettings,
    LearnedSettings,
    Observation,
    PriorSettings,
    PublicRows,
    Reconstruction,
    candidate_scores,
    closed_form_attack,
    compare_candidates,
    dlg_attack,
    fit_gaussian,
    idlg_attack,
    inverting_attack,
    learn_row_gradients,
    prior_attack,
)
from secretflow.ml.nn.fl.attacks.activations import as_activations
from secretflow.ml.nn.fl.attacks.gaussian import LocalPrior, Prior
from secretflow.ml.nn.fl.attacks.inverter import Inverter, attack_with
from secretflow.ml.nn.fl.attacks.learned import learn
from secretflow.ml.nn.fl.attacks.public import Distort, flat, living_coordinates
from secretflow.ml.nn.fl.attacks.ridge import regress
from secretflow.ml.nn.fl.audit.defences import round_stochastically
from secretflow.ml.nn.fl.audit.searches import prior_and_noise

Row = dict[str, Any]
_MANY = 4000
"""Gradients on which the speed of an inverter is taken."""
_SLOW = 20
"""Images at most for an attack that searches."""
_FEATURES = 1500
_FEW_PUBLIC, _FEW_CANDIDATES = 5000, 2000
_FROM_GREY = DLGSettings(60, 2, patience=6, start_mean=0.5, start_deviation=0.1, lanes=80)
_WIDE = LearnedSettings(width=1024, epochs=25)
"""Where a gradient is changed before it is learned from, for then less of what it tells is linear."""


def as_layers_were_given(
    observations: Sequence[Observation], noise: float = 0.0
) -> tuple[list[Observation], Distort]:
    """Observations in which a gradient of weights is what the layer was given, and how that is done.

    Args:
        observations: of one row each.
        noise: see :func:`~secretflow.ml.nn.fl.attacks.activations.as_activations`.
    """
    change = as_activations(observations[0], noise)
    return [replace(each, gradients=change(each.gradients)) for each in observations], change


def compared(observations: Sequence[Observation], material: Material, distort: Distort | None = None) -> Row:
    """Which of the 10,000 candidates has the gradient that was seen.

    Args:
        observations: of one image each, the first ones of the material.
        material: candidates.
        distort: what was done to the gradients in the observations.
    """
    started = time.perf_counter()
    scores = compare_candidates(observations, material.candidates(), distort)
    seconds = round(time.perf_counter() - started, 1)
    found = picked(scores, torch.arange(len(observations))[:, None])
    return {"attack": "gradient of each candidate", **found, "seconds": seconds}


def inverters(
    observations: Sequence[Observation], distort: Distort | None, material: Material
) -> Iterator[Row]:
    """Regression and learned inverter, on the gradients of the same public images.

    Args:
        observations: of one image each, the first ones of the material.
        distort: what is done to a gradient before the attacker has it as it is in them; None is nothing.
        material: images.

    Yields:
        A row for each.
    """
    started = time.perf_counter()
    learned = learn_row_gradients(observations[0], material.public, _FEATURES, distort=distort)
    computed = time.perf_counter() - started
    parts = learned.features, learned.seen, learned.public
    for name in ("ridge regression", "learned inverter"):
        begun = time.perf_counter()
        ridge = regress(*parts, seed=0)
        inverter: Inverter = ridge
        if name != "ridge regression":
            settings = LearnedSettings() if distort is None else _WIDE
            inverter = learn(ridge, *parts, observations[0].classes, settings)
        fitted = computed + time.perf_counter() - begun
        found = attack_with(inverter, observations)
        yield {
            "attack": name,
            **scored(found, material, time.perf_counter() - begun + computed),
            "fit_seconds": round(fitted, 1),
            "images_per_second": _speed(inverter, observations[0], found[0].labels),
            "coordinates": int(living_coordinates(observations[0]).sum()),
            "public": len(material.public.x),
        }


def _speed(inverter: Inverter, observation: Observation, label: torch.Tensor) -> int:
    many = flat(observation.gradients, living_coordinates(observation)).expand(_MANY, -1)
    begun = time.perf_counter()
    inverter.invert(many, label.expand(_MANY))
    return round(_MANY / (time.perf_counter() - begun))


def in_batches(
    observations: Sequence[Observation], numbers: torch.Tensor, material: Material, most: int = CANDIDATES
) -> Row:
    """Which candidates explain a batch or an average best.

    Args:
        observations: of as many rows each.
        numbers: of the rows that are in each of them, int64 of shape (observations, rows).
        material: candidates and public images.
        most: candidates that are asked of.
    """
    started = time.perf_counter()
    learned = learn_row_gradients(observations[0], material.public)
    scores = candidate_scores(learned, observations, material.candidates(most))
    return {
        "attack": "candidates",
        **picked(scores, numbers),
        "seconds": round(time.perf_counter() - started, 1),
    }


def in_wide_batches(observations: Sequence[Observation], numbers: torch.Tensor, material: Material) -> Row:
    """As :func:`in_batches`, with fewer images, for nets with 200,000 numbers in each gradient."""
    few = PublicRows(material.public.x[:_FEW_PUBLIC], material.public.y[:_FEW_PUBLIC])
    return in_batches(observations, numbers, replace(material, public=few), _FEW_CANDIDATES)


def closed_forms(observations: Sequence[Observation], material: Material) -> Iterator[Row]:
    """The closed form, alone and with what public images lead one to expect of pixels that are not shown.

    Args:
        observations: of one image each, the first ones of the material.
        material: images.

    Yields:
        A row for each.
    """
    public = material.public.x
    priors: dict[str, Callable[[], Prior | None]] = {
        "closed form": lambda: None,
        "closed form, Gaussian": lambda: fit_gaussian(public),
        "closed form, Gaussian of the nearest": lambda: LocalPrior(public),
    }

    def attack(make: Callable[[], Prior | None]) -> list[Reconstruction]:
        return closed_form_attack(observations, prior=make())

    for name, make in priors.items():
        yield _attacked(name, partial(attack, make), material)


def prior_search(observations: Sequence[Observation], material: Material, bits: int | None) -> Row:
    """The search with a Gaussian of public images, on 20 observations at most.

    Args:
        observations: of one image each, the first ones of the material.
        material: images.
        bits: of a rounded coordinate, whose noise the attacker knows; None is not rounded.
    """

    def search() -> list[Reconstruction]:
        prior, noise = prior_and_noise(material.public.x, bits)
        return prior_attack(observations[:_SLOW], prior, PriorSettings(noise=noise, lanes=32))

    return _attacked("Gaussian prior", search, material)


def idlg(observations: Sequence[Observation], material: Material) -> Row:
    """iDLG, which knows no public images, on 20 observations at most.

    Args:
        observations: of one image each, the first ones of the material.
        material: images.
    """
    return _attacked("iDLG", lambda: idlg_attack(observations[:_SLOW], _FROM_GREY), material)


def searches(observations: Sequence[Observation], material: Material) -> Iterator[Row]:
    """DLG and Inverting Gradients, which know no public images, on 20 observations at most.

    Args:
        observations: of one image each, the first ones of the material.
        material: images.

    Yields:
        A row for each.
    """
    few = observations[:_SLOW]
    yield _attacked("DLG", lambda: dlg_attack(few, _FROM_GREY), material)
    yield _attacked(
        "Inverting Gradients", lambda: inverting_attack(few, InvertingSettings(lanes=_SLOW)), material
    )


def _attacked(name: str, attack: Callable[[], Sequence[Reconstruction]], material: Material) -> Row:
    """A row of an attack and of the seconds that it takes."""
    started = time.perf_counter()
    found = attack()
    return {"attack": name, **scored(found, material, time.perf_counter() - started)}


def rounding(bits: int | None) -> Distort | None:
    """What an attacker does to gradients of its own where those it sees are rounded.

    Args:
        bits: of a rounded coordinate; None is not rounded.
    """
    if bits is None:
        return None
    return lambda arrays: round_stochastically(arrays, bits)


def scored(found: Sequence[Reconstruction], material: Material, seconds: float) -> Row:
    """The scores of reconstructions of the material's first images, and how long they took."""
    images = torch.cat([result.images for result in found])
    labels = torch.cat([result.labels for result in found])
    return {**score(images, torch.arange(len(found)), material, labels), "seconds": round(seconds, 1)}
