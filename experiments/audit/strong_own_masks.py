"""Averages of parties with masks of their own, each image searched in the net of its party."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from experiments.audit.strong_pruned import observed, prune
from experiments.audit.strong_scores import Material, in_order, score
from experiments.dgl_utils import LeNet, weights_init
from secretflow.ml.nn.fl.attacks import OwnMasksSettings, own_masks_attack

Row = dict[str, Any]
_SLOW = 48
"""Images at most, for this attack searches."""


def lenet() -> nn.Module:
    """The LeNet of the DLG paper with weights uniform in [-0.5, 0.5]."""
    return LeNet().apply(weights_init)


def masked_averages(
    material: Material,
    images: int,
    density: float,
    parties: int,
    model: Callable[[], nn.Module],
    net: str,
    settings: OwnMasksSettings = OwnMasksSettings(),  # noqa: B008 - frozen
) -> Iterator[Row]:
    """Averages of pruned gradients of one image a party, each with a mask of its own.

    What travels is what at least three parties keep, of two parties both, as `SecurePruneAggregator` has it
    unless told otherwise. The first attacker knows all masks, the second one how many parties keep each
    weight, which all are told. Neither is told a label.

    Args:
        material: images.
        images: to attack, in whole groups of parties, at least one group and 48 images at most.
        density: of the pruned weights, in (0, 1).
        parties: behind each average.
        model: builds the net, with weights to begin with.
        net: its name.
        settings: of the attacks.

    Yields:
        A row for each attacker.
    """
    pruned = prune(material, parties, density, own_masks=True, model=model)
    images = min(images, _SLOW)
    numbers = torch.arange(max(1, images // parties) * parties).view(-1, parties)
    kept_by = min(3, parties)
    observations = [observed(pruned, material, own, kept_by) for own in numbers]
    part = {name: count / parties for name, count in pruned.counts().items()}
    for attack, knowledge, masks in (
        ("rows in each party's net", "masks of their own", pruned.masks),
        ("rows in each party's net, masks unknown", "number of parties that keep a weight", [part] * parties),
    ):
        started = time.perf_counter()
        rows = own_masks_attack(observations, masks, material.public, settings)
        seconds = round(time.perf_counter() - started, 1)
        found = [in_order(each.images, material, own) for each, own in zip(rows, numbers, strict=True)]
        yield {
            "net": net,
            "view": "average",
            "knowledge": knowledge,
            "density": density,
            "bits": None,
            "parties": parties,
            "kept_by_all": round(pruned.common(), 3),
            "travels_if_kept_by": kept_by,
            "attack": attack,
            **score(torch.cat(found), numbers.flatten(), material),
            "seconds": seconds,
        }
