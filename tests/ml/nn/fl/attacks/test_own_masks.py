"""Rows behind averages of parties with masks of their own, each searched in the net of its party."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import Observation, OwnMasksSettings, PublicRows, own_masks_attack
from secretflow.ml.nn.fl.audit.views import Knowledge, observe, party_gradient, plain_aggregate

from .kept import pruned_parties

FEATURES, CLASSES, PARTIES, RANK = 40, 4, 4, 6
QUICK = OwnMasksSettings(noises=(0.3, 0.03), iterations=2, rank=RANK)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 50), nn.Tanh(), nn.Linear(50, CLASSES))


@pytest.fixture(scope="module")
def public() -> PublicRows:
    return rows(400, seed=1)


def rows(count: int, seed: int) -> PublicRows:
    """Rows on a plane for each label, which all have in common however they are drawn."""
    planes = torch.randn(CLASSES, FEATURES, RANK + 1, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (count,), generator=generator)
    along = torch.cat([torch.ones(count, 1), torch.randn(count, RANK, generator=generator)], dim=1)
    return PublicRows(torch.einsum("nfr,nr->nf", planes[y], along) / RANK**0.5, y)


def average() -> tuple[PublicRows, list[dict[str, torch.Tensor]], Observation]:
    """Rows, the masks of their parties, of a quarter of the weights each, and their average."""
    torch.manual_seed(3)
    own, weights = rows(PARTIES, seed=2), dict(net().state_dict())
    masks, steps = pruned_parties(net, weights, own.x, own.y, density=0.25, apart=0.05)
    seen = plain_aggregate([party_gradient(step) for step in steps])
    union = {name: torch.stack([mask[name] for mask in masks]).amax(dim=0) for name in masks[0]}
    step = replace(steps[0], weights=weights, mask=union)
    return own, masks, observe(step, seen, Knowledge.MASK_KNOWN, classes=CLASSES, parties=PARTIES)


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest of a row's mean squared errors, relative to the spread of rows."""
    return float((found - truth).square().mean(dim=1).max() / truth.var())


def test_each_party_s_row_and_label_come_back_in_the_order_of_the_masks(public: PublicRows) -> None:
    own, masks, observation = average()
    (found,) = own_masks_attack([observation], masks, public, QUICK)
    assert torch.equal(found.labels, own.y)
    assert error(found.images, own.x) < 1e-3
    (other,) = own_masks_attack([observation], masks[::-1], public, QUICK)
    assert error(other.images.flip(0), own.x) < 1e-3


def test_what_only_some_parties_keep_is_enough_where_nothing_else_is_seen(public: PublicRows) -> None:
    own, masks, observation = average()
    some = {name: 1 - torch.stack([mask[name] for mask in masks]).amin(dim=0) for name in masks[0]}
    (found,) = own_masks_attack([replace(observation, compared=some)], masks, public, QUICK)
    assert error(found.images, own.x) < 1e-2


def test_who_knows_how_many_keep_each_weight_gets_less_back(public: PublicRows) -> None:
    own, masks, observation = average()
    part = {name: torch.stack([mask[name] for mask in masks]).mean(dim=0) for name in masks[0]}
    (found,) = own_masks_attack([observation], [part] * PARTIES, public, QUICK, labels=own.y[None])
    assert error(found.images, own.x) > 0.3


def test_nothing_comes_back_from_noise(public: PublicRows) -> None:
    own, masks, observation = average()
    noise = tuple(torch.randn_like(g) * g.std() for g in observation.gradients)
    (found,) = own_masks_attack(
        [replace(observation, gradients=noise)], masks, public, QUICK, labels=own.y[None]
    )
    assert error(found.images, own.x) > 0.5


def test_observations_that_are_attacked_together_do_not_mix(public: PublicRows) -> None:
    own, masks, observation = average()
    zeros = replace(observation, gradients=tuple(torch.zeros_like(g) for g in observation.gradients))
    both = own_masks_attack([zeros, observation], masks, public, replace(QUICK, lanes=2))
    assert error(both[1].images, own.x) < 1e-3 and error(both[0].images, own.x) > 0.1


def test_masks_that_do_not_fit_are_refused(public: PublicRows) -> None:
    _, masks, observation = average()
    with pytest.raises(ValueError, match="masks must be one for each of 4 parties"):
        own_masks_attack([observation], masks[1:], public)
    with pytest.raises(ValueError, match="masks must be of parameters of the net"):
        own_masks_attack([observation], [{"0.weight": torch.ones(2)}, *masks[1:]], public)
