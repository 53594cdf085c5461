"""What the strong attackers are measured on: each setting is one net, one defence and the attackers on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from experiments.audit.data import Perceptron
from experiments.audit.strong_scores import Material, score
from experiments.dgl_utils import CLASSES, LeNet, weights_init
from secretflow.ml.nn.fl.attacks import (
    DLGSettings,
    Observation,
    PriorSettings,
    Reconstruction,
    closed_form_attack,
    fit_gaussian,
    fit_learned,
    fit_ridge,
    idlg_attack,
    prior_attack,
)
from secretflow.ml.nn.fl.attacks.inverter import Inverter, attack_with
from secretflow.ml.nn.fl.attacks.public import Distort, flat, living_coordinates
from secretflow.ml.nn.fl.audit.defences import magnitude_mask, round_stochastically
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient

Row = dict[str, Any]
_SEED = 1
_MANY = 4000
"""Gradients on which the speed of an inverter is taken."""
_SLOW = 20
"""Images at most for an attack that searches."""


def lenet_gradients(
    material: Material, images: int, density: float, attacks: Sequence[str], bits: int | None = None
) -> Iterator[Row]:
    """One image's gradient in the LeNet of the DLG paper, pruned, and rounded if asked for.

    Args:
        material: images.
        images: to attack, at most; of an attack that searches at most 20.
        density: of the pruned weights, in (0, 1].
        attacks: "ridge", "learned", "prior" and "iDLG".
        bits: of a rounded coordinate; None does not round.

    Yields:
        A row for each attack.
    """
    torch.manual_seed(_SEED)
    net = LeNet()
    net.apply(weights_init)
    weights = dict(net.state_dict())
    observations = _observations(LeNet, weights, material, images, density, bits)
    common = {
        "net": "LeNet",
        "view": "gradient",
        "knowledge": "mask-aware" if density < 1 else "nothing pruned",
        "density": density,
        "bits": bits,
        "parties": 1,
    }
    numbers = torch.arange(images)
    if "ridge" in attacks:
        yield {**common, **_inverted("ridge regression", fit_ridge, observations, material, bits)}
    if "learned" in attacks:
        yield {**common, **_inverted("learned inverter", fit_learned, observations, material, bits)}
    few = observations[:_SLOW]
    if "prior" in attacks:
        prior = fit_gaussian(material.public.x)
        noise = PriorSettings().noise if bits is None else relative_noise(bits)
        started = time.perf_counter()
        found = prior_attack(few, prior, PriorSettings(noise=noise, lanes=32))
        yield {**common, "attack": "Gaussian prior", **_scored(found, numbers, material, started)}
    if "iDLG" in attacks:
        started = time.perf_counter()
        settings = DLGSettings(60, 2, patience=6, start_mean=0.5, start_deviation=0.1, lanes=80)
        found = idlg_attack(few, settings)
        yield {**common, "attack": "iDLG", **_scored(found, numbers, material, started)}


def perceptron_gradients(material: Material, images: int, density: float) -> Iterator[Row]:
    """One image's gradient in a net that begins with a fully connected layer, pruned.

    Args:
        material: images.
        images: to attack.
        density: of the pruned weights, in (0, 1].

    Yields:
        The closed form without and with the Gaussian of public images.
    """
    torch.manual_seed(_SEED)
    net = _perceptron()
    net.apply(weights_init)
    observations = _observations(_perceptron, dict(net.state_dict()), material, images, density, None)
    common = {
        "net": "784-100-10 sigmoid",
        "view": "gradient",
        "knowledge": "mask-aware",
        "density": density,
        "bits": None,
        "parties": 1,
    }
    numbers = torch.arange(images)
    for name, prior in (("closed form", None), ("closed form, Gaussian", fit_gaussian(material.public.x))):
        started = time.perf_counter()
        found = closed_form_attack(observations, prior=prior)
        yield {**common, "attack": name, **_scored(found, numbers, material, started)}


def baselines(material: Material, images: int) -> Iterator[Row]:
    """What attackers who see nothing come to: the mean image, the nearest public image, noise.

    Args:
        material: images.
        images: to guess.

    Yields:
        A row for each.
    """
    numbers = torch.arange(images)
    truth, public = material.x[:images], material.public.x
    nearest = torch.cdist(truth.flatten(1), public.flatten(1)).argmin(dim=1)
    guesses = {
        "mean image (sees nothing)": public.mean(dim=0).expand_as(truth),
        "nearest public image (sees the truth)": public[nearest],
        "noise (sees nothing)": torch.rand(truth.shape, generator=torch.Generator().manual_seed(_SEED)),
    }
    for name, guess in guesses.items():
        yield {
            "net": None,
            "view": "baseline",
            "knowledge": None,
            "density": None,
            "bits": None,
            "parties": None,
            "attack": name,
            **score(guess, numbers, material),
        }


def relative_noise(bits: int) -> float:
    """Deviation that rounding adds to a coordinate, relative to the largest one of its array.

    Stochastic rounding to steps of 1 has a variance of 1/6 where the fraction is uniform.

    Args:
        bits: of a rounded coordinate, at least 2.
    """
    return float((1 / (2 ** (bits - 1) - 1)) / 6**0.5)


def _perceptron() -> nn.Module:
    return Perceptron(28 * 28, CLASSES)


def _observations(
    net: Callable[[], nn.Module],
    weights: dict[str, torch.Tensor],
    material: Material,
    images: int,
    density: float,
    bits: int | None,
) -> list[Observation]:
    mask = magnitude_mask(net, weights, 1 - density) if density < 1 else {}
    found = []
    for number in range(images):
        own = slice(number, number + 1)
        party = PartyStep(net, weights, material.x[own], material.y[own], mask)
        seen = party_gradient(party)
        if bits is not None:
            seen = round_stochastically(seen, bits, seed=number)
        found.append(observe(party, seen, Knowledge.MASK_KNOWN, classes=CLASSES))
    return found


def _inverted(
    name: str,
    fit: Callable[..., Inverter],
    observations: Sequence[Observation],
    material: Material,
    bits: int | None,
) -> Row:
    started = time.perf_counter()
    distort: Distort | None = None
    if bits is not None:
        levels = bits

        def distort(arrays: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return round_stochastically(arrays, levels)

    inverter = fit(observations[0], material.public, distort=distort)
    fitted = time.perf_counter()
    found = attack_with(inverter, observations)
    living = living_coordinates(observations[0])
    many = flat(observations[0].gradients, living).expand(_MANY, -1)
    begun = time.perf_counter()
    inverter.invert(many, torch.cat([found[0].labels] * _MANY))
    speed = _MANY / (time.perf_counter() - begun)
    return {
        "attack": name,
        **_scored(found, torch.arange(len(observations)), material, started),
        "fit_seconds": round(fitted - started, 1),
        "images_per_second": round(speed),
        "coordinates": int(living.sum()),
        "public": len(material.public.x),
    }


def _scored(
    found: Sequence[Reconstruction], numbers: torch.Tensor, material: Material, started: float
) -> Row:
    seconds = time.perf_counter() - started
    images = torch.cat([result.images for result in found])
    labels = torch.cat([result.labels for result in found])
    return {
        **score(images, numbers[: len(found)], material, labels),
        "seconds": round(seconds, 1),
    }
