"""Compares what attackers found with the truth, which no attack sees."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from experiments.audit.data import Dataset
from experiments.audit.effort import Effort
from secretflow.ml.nn.fl.attacks import Reconstruction
from secretflow.ml.nn.fl.audit.intervals import wilson_interval
from secretflow.ml.nn.fl.audit.scores import (
    SUCCESS_MSE,
    label_accuracy,
    match,
    mean_squared_error,
    nearest,
    peak_signal_to_noise,
    structural_similarity,
)
from secretflow.ml.nn.fl.audit.views import PartyStep

SHOWN = 3
"""Images of each cell that are kept for the report's contact sheet."""


@dataclass(frozen=True)
class _Scores:
    mse: float
    psnr: float
    ssim: float
    identified: bool


def score(
    found: Sequence[Reconstruction], wholes: Sequence[Sequence[PartyStep]], dataset: Dataset, number: int
) -> dict[str, Any]:
    """Scores what came back of one image after the other.

    Args:
        found: of each group of parties what the attack found.
        wholes: the parties of each group.
        dataset: whose images were attacked.
        number: of the first of them.

    Returns:
        Counts, interval and medians of a row of the report, and its first images.
    """
    scores, labels, examples = [], [], []
    for result, parties in zip(found, wholes, strict=True):
        truth, true_labels = torch.cat([p.x for p in parties]), torch.cat([p.y for p in parties])
        order = match(result.images, truth)
        images = result.images[order].cpu()
        labels.append(label_accuracy(result.labels[order].cpu(), true_labels))
        for image, true in zip(images.split(1), truth.split(1), strict=True):
            scores.append(_score_one(image, true, number, dataset))
            examples.append([_as_bytes(true), _as_bytes(image)])
            number += 1
    return {
        **_summary(scores, dataset),
        "label_accuracy": round(statistics.mean(labels), 4),
        "failed_restarts": sum(result.diverged for result in found),
        "examples": examples[:SHOWN],
        "example_shape": list(dataset.x.shape[1:]),
    }


def _score_one(image: torch.Tensor, truth: torch.Tensor, number: int, dataset: Dataset) -> _Scores:
    return _Scores(
        mean_squared_error(image, truth),
        peak_signal_to_noise(image, truth),
        structural_similarity(image, truth),
        int(nearest(image, dataset.x)) == number,
    )


def _summary(scores: Sequence[_Scores], dataset: Dataset) -> dict[str, Any]:
    successes = sum(score.mse < SUCCESS_MSE for score in scores)
    return {
        "images": len(scores),
        "identified": sum(score.identified for score in scores),
        "candidates": len(dataset.x),
        "successes": successes,
        "interval": [round(end, 4) for end in wilson_interval(successes, len(scores))],
        "median_mse": statistics.median(score.mse for score in scores),
        "median_psnr_db": statistics.median(score.psnr for score in scores),
        "median_ssim": statistics.median(score.ssim for score in scores),
    }


def _as_bytes(image: torch.Tensor) -> str:
    pixels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return base64.b64encode(pixels.numpy().tobytes()).decode()


def baselines(dataset: Dataset, effort: Effort) -> list[dict[str, Any]]:
    """Rows of two attackers who see nothing: one guesses the mean image, one guesses noise.

    Args:
        dataset: whose images are guessed.
        effort: which images, and the seed of the noise.
    """
    images, first = effort.images, effort.first
    truth = dataset.x[first : first + images]
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(effort.seed))
    guesses = {"mean image": dataset.x.mean(dim=0).expand_as(truth), "random noise": noise}
    rows = []
    for name, guess in guesses.items():
        scores = [_score_one(guess[k : k + 1], truth[k : k + 1], first + k, dataset) for k in range(images)]
        rows.append({"data": dataset.name, "baseline": name, **_summary(scores, dataset)})
    return rows
