"""The three scores of a setting, among 10,000 candidates, as a row of ``leakage.json``."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import torch

from experiments.data import as_images, load_images
from secretflow.ml.nn.fl.attacks import PublicRows
from secretflow.ml.nn.fl.audit.intervals import wilson_interval
from secretflow.ml.nn.fl.audit.scores import (
    SUCCESS_MSE,
    label_accuracy,
    match,
    mean_squared_error,
    ranks,
    structural_similarity,
)

CANDIDATES = 10_000


@dataclass(frozen=True)
class Material:
    """Images of MNIST's training part.

    Attributes:
        x: candidates, float32 of shape (10,000, 1, 28, 28) in [0, 1]; the first ones are attacked.
        y: their labels, int64.
        public: other images, which the attacker has.
        rest: images that are neither, on which parties train.
    """

    x: torch.Tensor
    y: torch.Tensor
    public: PublicRows
    rest: PublicRows

    def candidates(self, most: int = CANDIDATES) -> PublicRows:
        """The first candidates with their labels."""
        return PublicRows(self.x[:most], self.y[:most])


def load_material(public: int) -> Material:
    """Loads the images.

    Args:
        public: how many images the attacker has, at least 2 and at most 49,000.
    """
    images = load_images()
    x, y = torch.from_numpy(as_images(images.x_train)), torch.from_numpy(images.y_train).long()
    attacked, attackers, rest = (
        PublicRows(own, labels)
        for own, labels in zip(
            *(a.split([CANDIDATES, public, len(a) - CANDIDATES - public]) for a in (x, y)), strict=True
        )
    )
    return Material(attacked.x, attacked.y, attackers, rest)


def score(
    found: torch.Tensor, numbers: torch.Tensor, material: Material, labels: torch.Tensor | None = None
) -> dict[str, Any]:
    """Compares reconstructions with the images they are of.

    Args:
        found: float of shape (images, 1, 28, 28).
        numbers: of the true images among the candidates, int64 of shape (images,).
        material: the candidates.
        labels: that the attack gave, int64 of shape (images,); None if it gave none.

    Returns:
        Counts, their intervals, and medians.
    """
    truth = material.x[numbers]
    pairs = list(zip(found.float().split(1), truth.split(1), strict=True))
    errors = [mean_squared_error(image, true) for image, true in pairs]
    places = ranks(found.float(), numbers, material.x)
    counts = {
        "successes": sum(error < SUCCESS_MSE for error in errors),
        "identified": int((places == 1).sum()),
    }
    return {
        "images": len(found),
        **counts,
        "candidates": len(material.x),
        **{
            f"interval_{name}": [round(end, 3) for end in wilson_interval(count, len(found))]
            for name, count in counts.items()
        },
        "median_rank": int(places.median()),
        "median_mse": round(statistics.median(errors), 5),
        "median_ssim": round(statistics.median(structural_similarity(*pair) for pair in pairs), 3),
        "labels_right": None if labels is None else round(label_accuracy(labels, material.y[numbers]), 3),
    }


def in_order(found: torch.Tensor, material: Material, own: torch.Tensor) -> torch.Tensor:
    """What was read in the order of the true images; what was not is black.

    Args:
        found: float of shape (read, 1, 28, 28), at most as many as there are.
        material: candidates.
        own: numbers of the true images among them, int64 of shape (images,).
    """
    guess = torch.zeros(len(own), 1, 28, 28)
    guess[: len(found)] = found
    return guess[match(guess, material.x[own])]


def picked(scores: torch.Tensor, numbers: torch.Tensor) -> dict[str, Any]:
    """Compares the candidates that an attacker picks with the images that are there.

    Args:
        scores: of each candidate in each observation, float of shape (observations, candidates); the highest
            are in it.
        numbers: of the true images among the candidates, int64 of shape (observations, images of each).

    Returns:
        Counts, their interval, and the median rank; an image's rank is that among the candidates that are
        not in its observation, and itself.
    """
    places = []
    for own, values in zip(numbers, scores, strict=True):
        others = torch.ones(len(values), dtype=torch.bool)
        others[own] = False
        places.append(1 + (values[others] >= values[own][:, None]).sum(dim=1))
    ranked = torch.cat(places)
    identified = int((ranked == 1).sum())
    return {
        "images": len(ranked),
        "successes": None,
        "identified": identified,
        "candidates": scores.shape[1],
        "interval_identified": [round(end, 3) for end in wilson_interval(identified, len(ranked))],
        "median_rank": int(ranked.median()),
    }
