"""Attacks on averages of pruned uploads, with one mask for all or masks of the parties' own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from experiments.audit.strong_attacks import in_wide_batches
from experiments.audit.strong_averages import perceptron
from experiments.audit.strong_exact import whole_batches
from experiments.audit.strong_scores import Material, in_order, picked, score
from experiments.dgl_utils import CLASSES
from secretflow.ml.nn.fl.attacks import (
    Observation,
    SpearSettings,
    fit_gaussian,
    match_neurons,
    read_neurons,
    span_scores,
    spear_attack,
)
from secretflow.ml.nn.fl.audit.defences import magnitude_mask
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, apply_mask, observe, party_gradient

Row = dict[str, Any]
_SEED, _BATCH, _LEARNING_RATE = 1, 10, 0.1
_STEPS = 10
"""Local steps after which parties prune by weights of their own."""
_SLOW, _SECONDS = 48, 10.0
"""Images of averages that are inverted exactly, and the time of each search at most."""


@dataclass(frozen=True)
class Pruned:
    """Parties' masks, and the average of their weights.

    Attributes:
        weights: by name; of those that a mask prunes at some parties the average of the others.
        masks: of each party, by name.
        model: builds the net.
    """

    weights: dict[str, torch.Tensor]
    masks: Sequence[dict[str, torch.Tensor]]
    model: Callable[[], nn.Module]

    def counts(self) -> dict[str, torch.Tensor]:
        """How many parties keep each weight, which all are told, by name."""
        return {name: sum(mask[name] for mask in self.masks) for name in self.masks[0]}  # type: ignore[misc]

    def common(self) -> float:
        """Part of the weights that some party keeps and that all keep."""
        counts = [entry.flatten() for entry in self.counts().values()]
        alive = torch.cat(counts)
        return float((alive == len(self.masks)).sum() / (alive > 0).sum())


def prune(
    material: Material,
    parties: int,
    density: float,
    own_masks: bool,
    model: Callable[[], nn.Module] = perceptron,
) -> Pruned:
    """The net as it is after the parties have pruned by magnitude.

    Args:
        material: on whose rest the parties train.
        parties: how many.
        density: of the pruned weights, in (0, 1).
        own_masks: whether each prunes after ten steps with ten images of its own, and all average then.
        model: builds the net, with weights to begin with.
    """
    torch.manual_seed(_SEED)
    start = {name: value.detach().clone() for name, value in model().state_dict().items()}
    if not own_masks:
        return Pruned(start, [magnitude_mask(model, start, 1 - density)] * parties, model)
    locals_ = [_trained(model(), start, material, party) for party in range(parties)]
    masks = [magnitude_mask(model, weights, 1 - density) for weights in locals_]
    average = {}
    for name in start:
        kept = [
            weights[name] * mask[name] if name in mask else weights[name]
            for weights, mask in zip(locals_, masks, strict=True)
        ]
        count = sum(mask[name] for mask in masks) if name in masks[0] else parties
        average[name] = torch.stack(kept).sum(dim=0) / torch.as_tensor(count).clamp(min=1)
    return Pruned(average, masks, model)


def pruned_averages(
    material: Material, images: int, density: float, own_masks: bool, parties: int
) -> Iterator[Row]:
    """Averages of pruned gradients of one image a party: what neurons hold, and which candidates are in it.

    An attacker compares what all parties keep: there the average is of all of them.

    Args:
        material: images.
        images: to attack, in whole groups of parties, at least one group.
        density: of the pruned weights, in (0, 1).
        own_masks: whether each party has a mask of its own.
        parties: behind each average.

    Yields:
        Four rows.
    """
    common, numbers, observations = _observations(material, images, density, own_masks, parties)
    yield {**common, **in_wide_batches(observations, numbers, material)}
    started = time.perf_counter()
    prior = fit_gaussian(material.public.x)
    found = [
        in_order(read_neurons(seen, prior).float(), material, own)
        for seen, own in zip(observations, numbers, strict=True)
    ]
    seconds = round(time.perf_counter() - started, 1)
    scores = score(torch.cat(found), numbers.flatten(), material)
    yield {**common, "attack": "rows of neurons", **scores, "seconds": seconds}
    asked = material.candidates().x
    for name, attack in (("space of the rows", span_scores), ("neurons of each candidate", match_neurons)):
        started = time.perf_counter()
        scores_of = torch.stack([attack(seen, asked) for seen in observations])
        seconds = round(time.perf_counter() - started, 1)
        yield {**common, "attack": name, **picked(scores_of, numbers), "seconds": seconds}


def exact_averages(
    material: Material, images: int, density: float, own_masks: bool, parties: int
) -> Iterator[Row]:
    """Averages as in :func:`pruned_averages`, of which the gradient is filled in and inverted exactly.

    Args:
        material: images.
        images: to attack, in whole groups of parties, at least one group and 48 images at most.
        density: of the pruned weights, in (0, 1).
        own_masks: whether each party has a mask of its own.
        parties: behind each average.

    Yields:
        A row.
    """
    images = min(images, _SLOW)
    common, numbers, observations = _observations(material, images, density, own_masks, parties)
    settings = SpearSettings(agreement=0.8 if own_masks else 0.95, seconds=_SECONDS, explained=not own_masks)
    started = time.perf_counter()
    found = [
        in_order(spear_attack(seen, settings).float(), material, own)
        for seen, own in zip(observations, numbers, strict=True)
    ]
    seconds = round(time.perf_counter() - started, 1)
    scores = score(torch.cat(found), numbers.flatten(), material)
    whole = whole_batches(found, numbers, material)
    yield {**common, "attack": "exact batch", **scores, **whole, "seconds": seconds}


def _observations(
    material: Material, images: int, density: float, own_masks: bool, parties: int
) -> tuple[Row, torch.Tensor, list[Observation]]:
    """What all rows have in common, the numbers of each average's images, and the averages."""
    pruned = prune(material, parties, density, own_masks)
    numbers = torch.arange(max(1, images // parties) * parties).view(-1, parties)
    common = {
        "net": "784-256-10 ReLU",
        "view": "average",
        "knowledge": "masks of their own" if own_masks else "one mask for all",
        "density": density,
        "bits": None,
        "parties": parties,
        "kept_by_all": round(pruned.common(), 3),
    }
    return common, numbers, [observed(pruned, material, own, parties) for own in numbers]


def _trained(
    net: nn.Module, start: dict[str, torch.Tensor], material: Material, party: int
) -> dict[str, torch.Tensor]:
    """Weights after local steps on images of the party's own."""
    net.load_state_dict(start)
    optimizer = torch.optim.SGD(net.parameters(), lr=_LEARNING_RATE)
    first = party * _STEPS * _BATCH
    for step in range(_STEPS):
        own = slice(first + step * _BATCH, first + (step + 1) * _BATCH)
        loss = nn.functional.cross_entropy(net(material.rest.x[own]), material.rest.y[own])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def observed(pruned: Pruned, material: Material, own: torch.Tensor, kept_by: int) -> Observation:
    """The average of the gradients of one image a party.

    Args:
        pruned: the parties' net and masks.
        material: images.
        own: numbers of the parties' images, int64 of shape (parties,).
        kept_by: parties, at least, that keep a weight whose average is seen and compared.
    """
    parties = [
        PartyStep(
            pruned.model,
            apply_mask(pruned.weights, mask),
            material.x[number : number + 1],
            material.y[number : number + 1],
            mask,
        )
        for number, mask in zip(own.tolist(), pruned.masks, strict=True)
    ]
    uploads = [party_gradient(party) for party in parties]
    counts = pruned.counts()
    travels = {name: (count >= kept_by).to(count.dtype) for name, count in counts.items()}
    names = [name for name, _ in pruned.model().named_parameters()]
    seen = [
        torch.stack(arrays).mean(dim=0) * travels.get(name, torch.ones(()))
        for name, arrays in zip(names, zip(*uploads, strict=True), strict=True)
    ]
    some_keep = {name: (count > 0).to(count.dtype) for name, count in counts.items()}
    step = replace(parties[0], weights=pruned.weights, mask=some_keep)
    found = observe(step, seen, Knowledge.MASK_KNOWN, classes=CLASSES, parties=len(parties))
    return replace(found, compared=travels)
