"""Batches inverted exactly in a deep fully connected net, as in the paper of that attack."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from experiments.audit.strong_scores import Material, in_order, score
from experiments.dgl_utils import CLASSES
from secretflow.ml.nn.fl.attacks import SpearSettings, spear_attack
from secretflow.ml.nn.fl.audit.scores import SUCCESS_MSE
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient

Row = dict[str, Any]
_SEED, _WIDTH, _LAYERS = 1, 200, 6
_BATCHES, _SECONDS = 20, 10.0
"""Batches at least, and the time of each at most."""
EXACT = 1e-8
"""Mean squared error below which an image counts as the same; pixels are 4e-3 apart."""


def deep(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Six fully connected layers, of 200 neurons and a ReLU each but for the last one."""
    sizes = [28 * 28, *[_WIDTH] * (_LAYERS - 1)]
    hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(_WIDTH, CLASSES)).to(dtype)


def exact_batches(
    material: Material, images: int, batch: int, dtype: torch.dtype = torch.float32
) -> Iterator[Row]:
    """The dense gradients of batches in an untrained net of torch's own weights.

    The net and the data are like those of the attack's paper (Dimitrov et al., "SPEAR", NeurIPS 2024): MNIST,
    six layers of width 200.

    Args:
        material: images.
        images: to attack, in whole batches, of which there are at least 20.
        batch: images of each.
        dtype: of the net and its gradient.

    Yields:
        A row; of its seconds each batch took about 10 at most.
    """
    numbers = torch.arange(max(_BATCHES, images // batch) * batch).view(-1, batch)
    yield {
        "net": "784-200-200-200-200-200-10 ReLU",
        "view": f"gradient of a batch of {batch}" + (" in float64" if dtype is torch.float64 else ""),
        **_inverted(material, numbers, partial(deep, dtype), dtype, _SECONDS),
    }


def shallow(neurons: int) -> nn.Module:
    """Two fully connected layers with a ReLU between."""
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, neurons), nn.ReLU(), nn.Linear(neurons, CLASSES))


def batches_of_one_label(
    material: Material, images: int, batch: int, neurons: int, seconds: float = _SECONDS
) -> Iterator[Row]:
    """Gradients of batches whose images are of one digit each, in a net of few neurons.

    Args:
        material: images.
        images: to attack, in whole batches, of which there are at least 20; the digits take turns.
        batch: images of each.
        neurons: of the first layer.
        seconds: of each batch at most, about.

    Yields:
        A row.
    """
    of_label = [(material.y == label).nonzero()[:, 0] for label in range(CLASSES)]
    numbers = torch.stack(
        [
            of_label[number % CLASSES][number // CLASSES * batch :][:batch]
            for number in range(max(_BATCHES, images // batch))
        ]
    )
    yield {
        "net": f"784-{neurons}-10 ReLU",
        "view": f"gradient of a batch of {batch} of one label",
        **_inverted(material, numbers, partial(shallow, neurons), torch.float32, seconds),
    }


def _inverted(
    material: Material,
    numbers: torch.Tensor,
    model: Callable[[], nn.Module],
    dtype: torch.dtype,
    most: float,
) -> Row:
    """What comes back of batches whose images have numbers, (batches, images of each), wrong rows as well."""
    torch.manual_seed(_SEED)
    weights = dict(model().state_dict())
    found, seconds, wrong = [], [], 0
    for own in numbers:
        party = PartyStep(model, weights, material.x[own].to(dtype), material.y[own], {})
        observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=CLASSES)
        started = time.perf_counter()
        rows = spear_attack(observation, SpearSettings(seconds=most)).float()
        seconds.append(time.perf_counter() - started)
        errors = (rows[:, None] - material.x[own]).square().flatten(2).mean(dim=2)
        wrong += int((errors.amin(dim=1) >= SUCCESS_MSE).sum())
        found.append(in_order(rows, material, own))
    return {
        "knowledge": "nothing pruned",
        "density": 1.0,
        "bits": None,
        "parties": 1,
        "attack": "exact batch",
        **score(torch.cat(found), numbers.flatten(), material),
        **whole_batches(found, numbers, material),
        "wrong": wrong,
        "median_seconds_of_a_batch": round(statistics.median(seconds), 2),
        "seconds": round(sum(seconds), 1),
    }


def whole_batches(found: list[torch.Tensor], numbers: torch.Tensor, material: Material) -> dict[str, int]:
    """How many batches there are, and of how many every image came back exactly.

    Args:
        found: of each batch, in the order of the true images.
        numbers: of the true images, int64 of shape (batches, images of each).
        material: images.
    """
    exact = [
        bool(((rows - material.x[own]).square().flatten(1).mean(dim=1) < EXACT).all())
        for rows, own in zip(found, numbers, strict=True)
    ]
    return {"batches": len(exact), "exact_batches": sum(exact)}
