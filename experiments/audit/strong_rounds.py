"""Images read off the averages of many rounds, while the net is trained by them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from experiments.audit.strong_averages import average_of, perceptron
from experiments.audit.strong_scores import Material, score
from secretflow.ml.nn.fl.attacks import read_average

Row = dict[str, Any]
_SEED, _LEARNING_RATE = 1, 0.1
_HELD = 5
"""Images of each party."""
_SAME = 0.01
"""Largest difference of two readings of one image."""


@dataclass
class Collection:
    """Distinct images that were read, each with the aggregation weights that it was read with.

    Attributes:
        images: float64 of shape (1, 28, 28) each.
        weights: of each image's readings.
    """

    images: list[torch.Tensor] = field(default_factory=list)
    weights: list[list[float]] = field(default_factory=list)

    def add(self, images: torch.Tensor, weights: torch.Tensor) -> None:
        """Takes the readings of a round."""
        for image, weight in zip(images, weights.tolist(), strict=True):
            same = [k for k, other in enumerate(self.images) if (image - other).abs().max() < _SAME]
            if same:
                self.weights[same[0]].append(weight)
            else:
                self.images.append(image)
                self.weights.append([weight])


def rounds_of_averages(material: Material, rounds: int, parties: int, equal: bool = True) -> Iterator[Row]:
    """Rounds in which each party uploads the gradient of one of its five images; the average is the update.

    Args:
        material: images; the parties hold the first ones.
        rounds: of training, with a learning rate of 0.1.
        parties: behind each average.
        equal: whether all have one aggregation weight; else the weights are those of 1, 2, ... samples, and
            the attacker, who is told them, groups images by party.

    Yields:
        A row; its images are the distinct ones that took part.
    """
    torch.manual_seed(_SEED)
    weights = dict(perceptron().state_dict())
    names = [name for name, _ in perceptron().named_parameters()]
    counts = torch.ones(parties) if equal else torch.arange(1.0, parties + 1)
    shares = counts / counts.sum()
    generator = torch.Generator().manual_seed(_SEED)
    collection, part, started = Collection(), set(), time.perf_counter()
    for _ in range(rounds):
        own = torch.arange(parties) * _HELD + torch.randint(_HELD, (parties,), generator=generator)
        part |= set(own.tolist())
        observation = average_of(weights, material, own, shares)
        reading = read_average(observation)
        collection.add(reading.images, reading.weights)
        weights = {
            name: weights[name] - _LEARNING_RATE * gradient
            for name, gradient in zip(names, observation.gradients, strict=True)
        }
    seconds = time.perf_counter() - started
    numbers = torch.tensor(sorted(part))
    found, named = torch.zeros(len(numbers), 1, 28, 28), 0
    if collection.images:
        read = torch.stack(collection.images).float()
        distances = torch.cdist(material.x[numbers].flatten(1), read.flatten(1))
        nearest = distances.argmin(dim=1)
        found = torch.where((distances.min(dim=1).values < 1)[:, None, None, None], read[nearest], found)
        for number, image in zip(numbers.tolist(), nearest.tolist(), strict=True):
            mean = sum(collection.weights[image]) / len(collection.weights[image])
            named += int((shares - mean).abs().argmin()) == number // _HELD
    row = {
        "net": "784-256-10 ReLU",
        "view": f"averages of {rounds} rounds",
        "knowledge": "aggregation weights" if not equal else "nothing pruned",
        "density": 1.0,
        "bits": None,
        "parties": parties,
        "attack": "rows read off",
        **score(found, numbers, material),
        "read": len(collection.images),
        "seconds": round(seconds, 1),
    }
    yield row if equal else {**row, "parties_named": named}
