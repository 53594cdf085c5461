"""Batches unmixed by independence, behind activations that are never zero."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from experiments.audit.strong_scores import Material, in_order, score
from experiments.dgl_utils import CLASSES
from secretflow.ml.nn.fl.attacks import LocalPrior, read_neurons, unmix_rows
from secretflow.ml.nn.fl.audit.defences import magnitude_mask
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, apply_mask, observe, party_gradient

Row = dict[str, Any]
_SEED = 1


def smooth() -> nn.Module:
    """784, 256 and 10, with a tanh between."""
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 256), nn.Tanh(), nn.Linear(256, CLASSES))


def smooth_batches(material: Material, images: int, batch: int, density: float) -> Iterator[Row]:
    """Gradients of batches, or averages of as many parties with one image each and one mask: they are equal.

    Args:
        material: images.
        images: to attack, in whole batches, at least one.
        batch: images of each.
        density: of the pruned weights, in (0, 1].

    Yields:
        A row for the unmixing and one for rows of neurons.
    """
    torch.manual_seed(_SEED)
    weights = dict(smooth().state_dict())
    mask = magnitude_mask(smooth, weights, 1 - density) if density < 1 else {}
    weights = apply_mask(weights, mask)
    numbers = torch.arange(max(1, images // batch) * batch).view(-1, batch)
    parties = [PartyStep(smooth, weights, material.x[own], material.y[own], mask) for own in numbers]
    seen = [observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=CLASSES) for party in parties]
    prior = LocalPrior(material.public.x)
    for name, attack in (("cocktail party", unmix_rows), ("rows of neurons", read_neurons)):
        started = time.perf_counter()
        found = [attack(observation, prior).float() for observation in seen]
        seconds = time.perf_counter() - started
        ordered = [in_order(rows, material, own) for rows, own in zip(found, numbers, strict=True)]
        yield {
            "net": "784-256-10 tanh",
            "view": f"gradient of a batch of {batch}",
            "knowledge": "mask-aware" if density < 1 else "nothing pruned",
            "density": density,
            "bits": None,
            "parties": 1,
            "attack": name,
            **score(torch.cat(ordered), numbers.flatten(), material),
            "read": sum(len(rows) for rows in found),
            "seconds": round(seconds, 1),
        }


SETTINGS = {
    f"tanh {100 * density:g} %, batch of {batch}": partial(smooth_batches, batch=batch, density=density)
    for density in (1.0, 0.1, 0.05)
    for batch in (8, 16, 32)
}
"""By name; each is called with images and how many to attack."""
