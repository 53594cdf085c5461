"""Candidates told by single neurons of an average."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import Observation, match_neurons
from secretflow.ml.nn.fl.audit.defences import magnitude_mask
from secretflow.ml.nn.fl.audit.views import (
    Knowledge,
    PartyStep,
    apply_mask,
    observe,
    party_gradient,
    plain_aggregate,
)

FEATURES, CLASSES, PARTIES = 60, 4, 5


def sharp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 160), nn.ReLU(), nn.Linear(160, 20), nn.ReLU(), nn.Linear(20, CLASSES)
    )


def smooth() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 160), nn.Tanh(), nn.Linear(160, CLASSES))


def average(net, density: float) -> tuple[torch.Tensor, Observation]:
    """Rows without structure, and what parties with masks of their own all keep of their average."""
    torch.manual_seed(0)
    start = dict(net().state_dict())
    x, y = torch.randn(PARTIES, FEATURES), torch.randint(CLASSES, (PARTIES,))
    locals_ = [{n: v + 0.01 * torch.randn_like(v) for n, v in start.items()} for _ in range(PARTIES)]
    masks = [magnitude_mask(net, weights, 1 - density) if density < 1 else {} for weights in locals_]
    steps = [
        PartyStep(net, apply_mask(start, mask), x[k : k + 1], y[k : k + 1], mask)
        for k, mask in enumerate(masks)
    ]
    seen = plain_aggregate([party_gradient(step) for step in steps])
    found = observe(steps[0], seen, Knowledge.MASK_KNOWN, classes=CLASSES, parties=PARTIES)
    kept = {name: torch.stack([mask[name] for mask in masks]).amin(dim=0) for name in masks[0]}
    return x, dataclasses.replace(found, compared=kept)


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_rows_are_found_one_after_the_other(density: float) -> None:
    x, observation = average(sharp, density)
    scores = match_neurons(observation, torch.cat([x, torch.randn(300, FEATURES)]))
    assert float(scores[:PARTIES].min()) >= 8 and float(scores[PARTIES:].max()) < 1


def test_where_every_row_switches_all_neurons_on_none_is_told() -> None:
    x, observation = average(smooth, 1.0)
    assert float(match_neurons(observation, torch.cat([x, torch.randn(300, FEATURES)])).max()) < 1


def test_what_does_not_fit_is_refused() -> None:
    x, observation = average(sharp, 1.0)
    with pytest.raises(ValueError, match="x must be rows of shape"):
        match_neurons(observation, x[:, 1:])
