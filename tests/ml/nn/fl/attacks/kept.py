"""What all parties keep of an average under masks of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import Observation
from secretflow.ml.nn.fl.audit.defences import magnitude_mask
from secretflow.ml.nn.fl.audit.views import (
    Knowledge,
    PartyStep,
    apply_mask,
    observe,
    party_gradient,
    plain_aggregate,
)


def pruned_parties(
    net: Callable[[], nn.Module],
    start: dict[str, torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    density: float,
    apart: float,
) -> tuple[list[dict[str, torch.Tensor]], list[PartyStep]]:
    """Parties with a row each that have pruned common weights by weights of their own; their masks and steps.

    Args:
        net: of all parties.
        start: the common weights.
        x: a row of each party.
        y: its label.
        density: of each party's mask; with 1 there are none.
        apart: deviation of the weights from the common ones, by which each party prunes.
    """
    locals_ = [{n: v + apart * torch.randn_like(v) for n, v in start.items()} for _ in range(len(x))]
    masks = [magnitude_mask(net, weights, 1 - density) if density < 1 else {} for weights in locals_]
    steps = [
        PartyStep(net, apply_mask(start, mask), x[k : k + 1], y[k : k + 1], mask)
        for k, mask in enumerate(masks)
    ]
    return masks, steps


def kept_average(
    net: Callable[[], nn.Module],
    shape: tuple[int, int],
    classes: int,
    density: float,
    apart: float,
    draw: Callable[..., torch.Tensor] = torch.randn,
) -> tuple[torch.Tensor, Observation]:
    """Rows, by default without structure, and what all parties keep of the average gradient of one row each.

    Args:
        net: of all parties.
        shape: parties and numbers of a row.
        classes: of the labels.
        density: of each party's mask; with 1 there are none.
        apart: deviation of the weights from the common ones, by which each party prunes.
        draw: rows of a shape.
    """
    parties = shape[0]
    torch.manual_seed(0)
    start = dict(net().state_dict())
    x, y = draw(*shape), torch.randint(classes, (parties,))
    masks, steps = pruned_parties(net, start, x, y, density, apart)
    seen = plain_aggregate([party_gradient(step) for step in steps])
    found = observe(steps[0], seen, Knowledge.MASK_KNOWN, classes=classes, parties=parties)
    kept = {name: torch.stack([mask[name] for mask in masks]).amin(dim=0) for name in masks[0]}
    return x, dataclasses.replace(found, compared=kept)
