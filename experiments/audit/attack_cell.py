"""Measures one cell: parties compute, an attacker sees its part of it, and the answer is scored."""

from __future__ import annotations

import base64
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from experiments.audit.cells import (
    GROUP,
    INFERRED,
    KNOWN,
    NOISY,
    PADDED,
    PRUNING,
    SECURE,
    SPARSE,
    WITHHELD,
    ZEROS_COUNT,
    Cell,
)
from experiments.audit.data import CANDIDATES, Dataset
from experiments.audit.intervals import wilson_interval
from experiments.audit.noise import gaussian_dp
from secretflow.ml.nn.fl.attacks import (
    DLGSettings,
    InvertingSettings,
    LBFGSSettings,
    Observation,
    Reconstruction,
    closed_form_attack,
    dlg_attack,
    idlg_attack,
    inverting_attack,
)
from secretflow.ml.nn.fl.attacks.defences import magnitude_mask, sparsify, through_dp, withhold
from secretflow.ml.nn.fl.attacks.padded import decode_without_keys, padded_uploads
from secretflow.ml.nn.fl.attacks.scores import (
    SUCCESS_MSE,
    label_accuracy,
    match,
    mean_squared_error,
    nearest,
    peak_signal_to_noise,
    structural_similarity,
)
from secretflow.ml.nn.fl.attacks.views import (
    Knowledge,
    PartyStep,
    observe,
    observe_sparse,
    party_gradient,
    plain_aggregate,
    weight_update,
)

LEARNING_RATE = 0.1
"""Of the local steps whose update is attacked; the attacker knows it."""

_PADDED_PARTIES, _PADDED_TIMES = 2, 4
_LANES = 80
_SMALL, _LARGER = 28 * 28, 3  # larger images than MNIST's have so many times the steps, and one restart
_UNTIL_NOTHING_MOVES = LBFGSSettings(tolerance_grad=0, tolerance_change=0)
_SLOW_VIEWS = ("update k=5", "aggregate n=2", "aggregate n=4", "aggregate n=8")
SAME_AS = "same_as"
SHOWN = 3
"""Images of each cell that are kept for the report's contact sheet."""


@dataclass(frozen=True)
class Effort:
    """How hard the attackers try. What is no count of images was chosen on images from number 50 on.

    Attributes:
        images: to attack in each cell, at least 1; of padded uploads four times as many, if there are.
        first: number of the first of them.
        restarts: random starts of an L-BFGS attack on small images, at least 1.
        slow_restarts: the same on updates of several steps and on aggregates, which take longer.
        iterations: steps of a restart of DLG and iDLG, each of 20 evaluations, at least 1.
        adam_iterations: steps of a restart of Inverting Gradients, each of 20 evaluations, at least 1.
        patience: see :class:`~secretflow.ml.nn.fl.attacks.restarts.SearchSettings`.
        start_mean: see :class:`~secretflow.ml.nn.fl.attacks.dlg.DLGSettings`.
        start_deviation: see there.
        tv_weight: weight of the total variation in Inverting Gradients.
        seed: of nets and starts.
    """

    images: int = 20
    first: int = 0
    restarts: int = 4
    slow_restarts: int = 2
    iterations: int = 60
    adam_iterations: int = 30
    patience: int = 6
    start_mean: float = 0.5
    start_deviation: float = 0.1
    tv_weight: float = 1e-3
    seed: int = 1

    def on(self, view: str) -> Effort:
        """That on one view: more images where nothing should come back, so that few hits say something."""
        if view == PADDED:
            return replace(self, images=min(_PADDED_TIMES * self.images, CANDIDATES - GROUP - self.first))
        return replace(self, restarts=self.slow_restarts) if view in _SLOW_VIEWS else self

    def dlg(self, pixels: int) -> DLGSettings:
        """For DLG and iDLG on images of so many numbers.

        From grey, no restart on larger images was found to fail; they are slow, and get one.
        """
        small = pixels <= _SMALL
        return DLGSettings(
            _stretched(self.iterations, pixels),
            self.restarts if small else 1,
            patience=_stretched(self.patience, pixels),
            lanes=_LANES,
            seed=self.seed,
            lbfgs=LBFGSSettings() if small else _UNTIL_NOTHING_MOVES,
            start_mean=self.start_mean,
            start_deviation=self.start_deviation,
        )

    def inverting(self, pixels: int) -> InvertingSettings:
        """For Inverting Gradients on images of so many numbers; one restart, as few starts fail it."""
        return InvertingSettings(
            _stretched(self.adam_iterations, pixels), tv_weight=self.tv_weight, lanes=_LANES, seed=self.seed
        )


def _stretched(steps: int, pixels: int) -> int:
    return steps if pixels <= _SMALL else _LARGER * steps


@dataclass(frozen=True)
class _Scores:
    mse: float
    psnr: float
    ssim: float
    identified: bool


def measure(cell: Cell, dataset: Dataset, effort: Effort) -> dict[str, Any]:
    """Attacks some images and scores what comes back.

    Args:
        cell: attacker and defence.
        dataset: whose images are attacked.
        effort: how hard.

    Returns:
        The row of the report: cell, counts, interval, medians; under ``examples`` the first true images
        and their reconstructions, each as the bytes of its pixels in base64. If every mask that is inferred
        is the one that is known, the attack is the very same, and the row is the cell with ``SAME_AS``.
    """
    started, effort = time.perf_counter(), effort.on(cell.view)
    parties_of_one = int(cell.view.rpartition("n=")[2]) if cell.view.startswith("aggregate") else 1
    groups = math.ceil(effort.images / parties_of_one)
    firsts = [effort.first + group * parties_of_one for group in range(groups)]
    wholes = [_parties(cell, dataset, effort, range(first, first + parties_of_one)) for first in firsts]
    observations = [
        _observe(cell, dataset, parties, effort, first) for first, parties in zip(firsts, wholes, strict=True)
    ]
    if cell.knowledge == INFERRED and all(
        _same_masks(observation.mask, parties[0].mask)
        for observation, parties in zip(observations, wholes, strict=True)
    ):
        return {**cell.as_dict(), SAME_AS: KNOWN}
    found = _attack(cell.attack, observations, effort)
    return {
        **cell.as_dict(),
        "living_rate": _living_rate(wholes[0][0]),
        **_score(found, wholes, dataset, effort.first),
        "seconds": round(time.perf_counter() - started, 2),
    }


def filled_in(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """A row, with the numbers of the one that it is the same as, if it is; None if that is not there."""
    if SAME_AS not in row:
        return row
    wanted = {name: value for name, value in row.items() if name in Cell.__annotations__}
    wanted["knowledge"] = row[SAME_AS]
    whole = next((other for other in rows if wanted.items() <= other.items()), None)
    return None if whole is None else {**whole, **row}


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


def _same_masks(one: Mapping[str, torch.Tensor] | None, other: Mapping[str, torch.Tensor]) -> bool:
    return (
        one is not None
        and one.keys() == other.keys()
        and all(torch.equal(one[name], other[name]) for name in other)
    )


def _parties(cell: Cell, dataset: Dataset, effort: Effort, numbers: Sequence[int]) -> list[PartyStep]:
    """Parties of one net, each with one image."""
    weights = dataset.initial_weights(cell.attack, 1000 * effort.seed + numbers[0])
    mask = magnitude_mask(weights, cell.level) if cell.defence == PRUNING and cell.level else {}
    return [
        PartyStep(
            dataset.net(cell.attack),
            weights,
            dataset.x[number : number + 1],
            dataset.y[number : number + 1],
            mask,
        )
        for number in numbers
    ]


def _observe(
    cell: Cell, dataset: Dataset, parties: Sequence[PartyStep], effort: Effort, number: int
) -> Observation:
    party, classes = parties[0], dataset.classes
    if cell.defence in (SPARSE, WITHHELD):
        defend = sparsify if cell.defence == SPARSE else withhold
        seen = defend(party_gradient(party), cell.level)
        return observe_sparse(party, seen, cell.knowledge == ZEROS_COUNT, classes=classes)
    if cell.defence == NOISY:
        gradient = party_gradient(party)
        norm = math.sqrt(sum(float(array.square().sum()) for array in gradient))
        seen = through_dp(gradient, gaussian_dp(cell.level, norm), 1000 * effort.seed + number)
        return observe(party, seen, Knowledge.OBLIVIOUS, classes=classes)
    if cell.defence == SECURE:
        return observe(party, _padded(party), Knowledge.OBLIVIOUS, classes=classes)
    knowledge = Knowledge(cell.knowledge)
    if cell.view.startswith("update"):
        steps = int(cell.view.rpartition("k=")[2])
        return observe(
            party,
            weight_update(party, steps, LEARNING_RATE),
            knowledge,
            classes=classes,
            local_steps=steps,
            learning_rate=LEARNING_RATE,
        )
    seen = plain_aggregate([party_gradient(one) for one in parties])
    return observe(party, seen, knowledge, classes=classes, parties=len(parties))


def _padded(party: PartyStep) -> tuple[torch.Tensor, ...]:
    """The upload of the first of two parties as whoever has no key reads it."""
    upload = party_gradient(party)
    masks = [np.ones(tuple(array.shape), np.uint8) if array.dim() >= 2 else None for array in upload]
    payloads, opening = padded_uploads([upload] * _PADDED_PARTIES, [masks] * _PADDED_PARTIES)
    return decode_without_keys(payloads[0], opening, _PADDED_PARTIES)


def _attack(name: str, observations: Sequence[Observation], effort: Effort) -> list[Reconstruction]:
    pixels = math.prod(observations[0].image_shape)
    if name == "DLG":
        return dlg_attack(observations, effort.dlg(pixels))
    if name == "iDLG":
        return idlg_attack(observations, effort.dlg(pixels))
    if name == "Inverting Gradients":
        return inverting_attack(observations, effort.inverting(pixels))
    return closed_form_attack(observations)


def _score(
    found: Sequence[Reconstruction], wholes: Sequence[Sequence[PartyStep]], dataset: Dataset, number: int
) -> dict[str, Any]:
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


def _living_rate(party: PartyStep) -> float:
    size = sum(entry.numel() for entry in party.mask.values())
    return sum(float(entry.sum()) for entry in party.mask.values()) / size if size else 1.0
