"""Batches inverted exactly in a deep fully connected net, as in the paper of that attack."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from experiments.audit.strong_scores import Material, in_order, score
from experiments.dgl_utils import CLASSES
from secretflow.ml.nn.fl.attacks import SpearSettings, spear_attack
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient

Row = dict[str, Any]
_SEED, _WIDTH, _LAYERS = 1, 200, 6


def deep(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Six fully connected layers, of 200 neurons and a ReLU each but for the last one."""
    sizes = [28 * 28, *[_WIDTH] * (_LAYERS - 1)]
    hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(_WIDTH, CLASSES)).to(dtype)


def exact_batches(
    material: Material, images: int, batch: int, draws: int, dtype: torch.dtype = torch.float32
) -> Iterator[Row]:
    """The dense gradients of batches in an untrained net of torch's own weights.

    The net and the data are like those of the attack's paper (Dimitrov et al., "SPEAR", NeurIPS 2024): MNIST,
    six layers of width 200.

    Args:
        material: images.
        images: to attack, in whole batches, at least one.
        batch: images of each.
        draws: see :class:`~secretflow.ml.nn.fl.attacks.SpearSettings`.
        dtype: of the net and its gradient.

    Yields:
        A row.
    """
    torch.manual_seed(_SEED)
    model = partial(deep, dtype)
    weights = dict(model().state_dict())
    numbers = torch.arange(max(1, images // batch) * batch).view(-1, batch)
    found, started = [], time.perf_counter()
    for own in numbers:
        party = PartyStep(model, weights, material.x[own].to(dtype), material.y[own], {})
        observation = observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=CLASSES)
        rows = spear_attack(observation, SpearSettings(draws=draws)).float()
        found.append(in_order(rows, material, own))
    seconds = time.perf_counter() - started
    yield {
        "net": "784-200-200-200-200-200-10 ReLU",
        "view": f"gradient of a batch of {batch}" + (" in float64" if dtype is torch.float64 else ""),
        "knowledge": "nothing pruned",
        "density": 1.0,
        "bits": None,
        "parties": 1,
        "attack": "exact batch",
        **score(torch.cat(found), numbers.flatten(), material),
        "seconds": round(seconds, 1),
    }
