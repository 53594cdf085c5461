"""Measures one cell: parties compute, an attacker sees its part of it, and the answer is scored."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from experiments.audit.cells import (
    INFERRED,
    KNOWN,
    NOISY,
    PRUNING,
    SECURE,
    SPARSE,
    WITHHELD,
    ZEROS_COUNT,
    Cell,
)
from experiments.audit.data import Dataset
from experiments.audit.effort import Effort
from experiments.audit.noise import gaussian_dp
from experiments.audit.scoring import score
from secretflow.ml.nn.fl.attacks import (
    Observation,
    Reconstruction,
    closed_form_attack,
    dlg_attack,
    idlg_attack,
    inverting_attack,
)
from secretflow.ml.nn.fl.audit.defences import magnitude_mask, sparsify, through_dp
from secretflow.ml.nn.fl.audit.padded import decode_without_keys, padded_uploads
from secretflow.ml.nn.fl.audit.views import (
    Knowledge,
    PartyStep,
    observe,
    observe_sparse,
    party_gradient,
    plain_aggregate,
    weight_update,
)
from secretflow.ml.nn.fl.backend.torch.withholding import withhold

LEARNING_RATE = 0.1
"""Of the local steps whose update is attacked; the attacker knows it."""

SAME_AS = "same_as"
_PADDED_PARTIES = 2


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
        "density": _density(wholes[0][0]),
        **score(found, wholes, dataset, effort.first),
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


def _same_masks(one: Mapping[str, torch.Tensor] | None, other: Mapping[str, torch.Tensor]) -> bool:
    return (
        one is not None
        and one.keys() == other.keys()
        and all(torch.equal(one[name], other[name]) for name in other)
    )


def _parties(cell: Cell, dataset: Dataset, effort: Effort, numbers: Sequence[int]) -> list[PartyStep]:
    """Parties of one net, each with one image."""
    net = dataset.net(cell.attack)
    weights = dataset.initial_weights(cell.attack, 1000 * effort.seed + numbers[0])
    mask = magnitude_mask(net, weights, cell.level) if cell.defence == PRUNING and cell.level else {}
    return [
        PartyStep(
            net,
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


def _density(party: PartyStep) -> float:
    size = sum(entry.numel() for entry in party.mask.values())
    return sum(float(entry.sum()) for entry in party.mask.values()) / size if size else 1.0
