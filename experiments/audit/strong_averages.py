"""Reading images off the average gradient of many parties, and asking whether an image is in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from experiments.audit.strong_attacks import in_wide_batches
from experiments.audit.strong_scores import Material, score
from experiments.dgl_utils import CLASSES
from secretflow.ml.nn.fl.attacks import Observation, distance_from_average, read_average
from secretflow.ml.nn.fl.audit.intervals import wilson_interval
from secretflow.ml.nn.fl.audit.scores import match
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, party_gradient

Row = dict[str, Any]
_SEED = 1
IN = 0.01
"""Relative distance below which an image is said to be in the average; fixed before any measurement."""


def perceptron() -> nn.Module:
    """Two fully connected layers with a ReLU between: 784, 256 and 10."""
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 256), nn.ReLU(), nn.Linear(256, CLASSES))


def averages(material: Material, images: int, parties: int, equal: bool = True) -> Iterator[Row]:
    """The average gradient of parties with one image each, dense, in an untrained net of torch's own weights.

    Args:
        material: images.
        images: to attack, in whole groups of parties, at least one group.
        parties: behind each average.
        equal: whether all have one aggregation weight; else the weights are those of 1, 2, ... samples, which
            the parties are told, and each image that is read is given to the party whose weight it has.

    Yields:
        A row for what was read, and one for the test of membership.
    """
    torch.manual_seed(_SEED)
    weights = dict(perceptron().state_dict())
    counts = torch.ones(parties) if equal else torch.arange(1.0, parties + 1)
    shares = counts / counts.sum()
    groups = max(1, images // parties)
    found, numbers, named, read, right, started = [], [], 0, 0, 0, time.perf_counter()
    for group in range(groups):
        own = torch.arange(group * parties, (group + 1) * parties)
        observation = average_of(weights, material, own, shares)
        reading = read_average(observation)
        read += len(reading.images)
        guess = torch.zeros(parties, 1, 28, 28)
        guess[: len(reading.images)] = reading.images.float()
        order = match(guess, material.x[own])
        found.append(guess[order])
        numbers.append(own)
        given = torch.full((parties,), -1)
        given[: len(reading.weights)] = (reading.weights[:, None] - shares).abs().argmin(dim=1)
        named += int((given[order] == torch.arange(parties)).sum())
        others = len(material.x) - 1 - own
        asked = torch.cat([own, others])
        inside = distance_from_average(observation, material.x[asked], material.y[asked]) < IN
        right += int((inside == (torch.arange(2 * parties) < parties)).sum())
    seconds = time.perf_counter() - started
    common = {
        "net": "784-256-10 ReLU",
        "view": "average" if equal else "average, unequal sample counts",
        "knowledge": "aggregation weights" if not equal else "nothing pruned",
        "density": 1.0,
        "bits": None,
        "parties": parties,
        "seconds": round(seconds, 1),
    }
    scores = score(torch.cat(found), torch.cat(numbers), material)
    row = {**common, "attack": "rows read off", **scores, "read": read}
    yield row if equal else {**row, "parties_named": named}
    asked_of = 2 * parties * groups
    yield {
        **common,
        "attack": "membership",
        "images": asked_of,
        "successes": None,
        "identified": right,
        "candidates": 2,
        "interval_identified": [round(end, 3) for end in wilson_interval(right, asked_of)],
    }


def candidates_in_averages(material: Material, images: int, parties: int) -> Iterator[Row]:
    """Which candidates are in averages as in :func:`averages`, also of more parties than there are neurons.

    Args:
        material: images.
        images: to attack, in whole groups of parties, at least one group.
        parties: behind each average, all with one aggregation weight.

    Yields:
        A row.
    """
    torch.manual_seed(_SEED)
    weights = dict(perceptron().state_dict())
    numbers = torch.arange(max(1, images // parties) * parties).view(-1, parties)
    shares = torch.full((parties,), 1 / parties)
    observations = [average_of(weights, material, own, shares) for own in numbers]
    yield {
        "net": "784-256-10 ReLU",
        "view": "average",
        "knowledge": "nothing pruned",
        "density": 1.0,
        "bits": None,
        "parties": parties,
        **in_wide_batches(observations, numbers, material),
    }


def single_steps(
    weights: dict[str, torch.Tensor], material: Material, numbers: torch.Tensor
) -> list[PartyStep]:
    """A step of each party with one image, nothing pruned; for arguments see :func:`average_of`."""
    return [
        PartyStep(perceptron, weights, material.x[number : number + 1], material.y[number : number + 1], {})
        for number in numbers.tolist()
    ]


def average_of(
    weights: dict[str, torch.Tensor], material: Material, numbers: torch.Tensor, shares: torch.Tensor
) -> Observation:
    """What everybody sees of one round: the average of the gradients of single images.

    Args:
        weights: of the net of :func:`perceptron`, by name.
        material: images.
        numbers: of each party's image, int64 of shape (parties,).
        shares: aggregation weights, (parties,).
    """
    steps = single_steps(weights, material, numbers)
    uploads = [party_gradient(step) for step in steps]
    seen = [
        sum((share * array for share, array in zip(shares, arrays, strict=True)), torch.zeros(()))
        for arrays in zip(*uploads, strict=True)
    ]
    return observe(steps[0], seen, Knowledge.MASK_KNOWN, classes=CLASSES, parties=len(steps))
