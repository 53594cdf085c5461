"""What the strong attackers are measured on: each setting is one net, one defence and the attackers on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from experiments.audit.data import Perceptron
from experiments.audit.strong_attacks import (
    as_layers_were_given,
    closed_forms,
    compared,
    idlg,
    in_batches,
    inverters,
    prior_search,
    rounding,
)
from experiments.audit.strong_scores import Material, score
from experiments.dgl_utils import CLASSES, LeNet, weights_init
from secretflow.ml.nn.fl.attacks import Observation
from secretflow.ml.nn.fl.audit.defences import magnitude_mask, round_stochastically
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient

Row = dict[str, Any]
_SEED = 1


def lenet_gradients(
    material: Material, images: int, density: float, attacks: Sequence[str], bits: int | None = None
) -> Iterator[Row]:
    """One image's gradient in the LeNet of the DLG paper, pruned, and rounded if asked for.

    Args:
        material: images.
        images: to attack, at most; of an attack that searches at most 20.
        density: of the pruned weights, in (0, 1].
        attacks: "learned" (and with it the regression), "candidates", "prior" and "iDLG".
        bits: of a rounded coordinate; None does not round.

    Yields:
        A row for each attack.
    """
    observations = _observations(LeNet, material, torch.arange(images)[:, None], density, bits)
    common = {
        "net": "LeNet",
        "view": "gradient",
        "knowledge": "mask-aware" if density < 1 else "nothing pruned",
        "density": density,
        "bits": bits,
        "parties": 1,
    }
    if "learned" in attacks:
        yield from ({**common, **row} for row in inverters(observations, rounding(bits), material))
    if "candidates" in attacks:
        yield {**common, **compared(observations, material)}
    if "prior" in attacks:
        yield {**common, **prior_search(observations, material, bits)}
    if "iDLG" in attacks:
        yield {**common, **idlg(observations, material)}


def lenet_pruned_gradients(material: Material, images: int) -> Iterator[Row]:
    """One image's gradient in the LeNet of the DLG paper, of which only the largest hundredth is sent.

    The defence and the net are those of the code of the paper of learned inverters (Wu et al., "Learning to
    Invert", UAI 2023), pruned by 99 %; the images are MNIST's instead of CIFAR-10's.

    Args:
        material: images.
        images: to attack.

    Yields:
        A row for the regression and one for the learned inverter.
    """
    observations = [
        replace(seen, gradients=largest_hundredth(tuple(seen.gradients)))
        for seen in _observations(LeNet, material, torch.arange(images)[:, None], 1.0, None)
    ]
    common = {
        "net": "LeNet",
        "view": "gradient, its largest hundredth",
        "knowledge": "nothing pruned",
        "density": 1.0,
        "bits": None,
        "parties": 1,
    }
    yield from ({**common, **row} for row in inverters(observations, largest_hundredth, material))


def largest_hundredth(arrays: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Arrays of which only the largest hundredth of all coordinates, by absolute value, is not zero."""
    sizes = torch.cat([array.abs().flatten() for array in arrays])
    least = sizes.topk(len(sizes) // 100).values[-1]
    return tuple(torch.where(array.abs() >= least, array, torch.zeros_like(array)) for array in arrays)


def lenet_batches(material: Material, images: int, density: float, batch: int) -> Iterator[Row]:
    """Which candidates are in the gradient of a batch, in the LeNet of the DLG paper, pruned.

    Args:
        material: images.
        images: to attack, in whole batches, at least one.
        density: of the pruned weights, in (0, 1].
        batch: images of each gradient.

    Yields:
        A row.
    """
    numbers = torch.arange(max(1, images // batch) * batch).view(-1, batch)
    observations = _observations(LeNet, material, numbers, density, None)
    yield {
        "net": "LeNet",
        "view": f"gradient of a batch of {batch}",
        "knowledge": "mask-aware" if density < 1 else "nothing pruned",
        "density": density,
        "bits": None,
        "parties": 1,
        **in_batches(observations, numbers, material),
    }


def perceptron_gradients(material: Material, images: int, density: float) -> Iterator[Row]:
    """One image's gradient in a net that begins with a fully connected layer, pruned.

    Args:
        material: images.
        images: to attack.
        density: of the pruned weights, in (0, 1].

    Yields:
        The candidates' gradients, what learns from the pixels that are shown, and the closed form without and
        with Gaussians of public images.
    """
    observations = _observations(_perceptron, material, torch.arange(images)[:, None], density, None)
    common = {
        "net": "784-100-10 sigmoid",
        "view": "gradient",
        "knowledge": "mask-aware",
        "density": density,
        "bits": None,
        "parties": 1,
    }
    yield {**common, **compared(observations, material)}
    yield from ({**common, **row} for row in inverters(*as_layers_were_given(observations), material))
    yield from ({**common, **row} for row in closed_forms(observations, material))


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


def _perceptron() -> nn.Module:
    return Perceptron(28 * 28, CLASSES)


def _observations(
    make: Callable[[], nn.Module],
    material: Material,
    numbers: torch.Tensor,
    density: float,
    bits: int | None,
) -> list[Observation]:
    """Gradients in one net with weights uniform in [-0.5, 0.5], of the batches whose images have numbers."""
    torch.manual_seed(_SEED)
    net = make()
    net.apply(weights_init)
    weights = dict(net.state_dict())
    mask = magnitude_mask(make, weights, 1 - density) if density < 1 else {}
    found = []
    for seed, own in enumerate(numbers):
        party = PartyStep(make, weights, material.x[own], material.y[own], mask)
        seen = party_gradient(party)
        if bits is not None:
            seen = round_stochastically(seen, bits, seed=seed)
        found.append(observe(party, seen, Knowledge.MASK_KNOWN, classes=CLASSES))
    return found
