"""Batches inverted exactly behind a fully connected layer and a ReLU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import Observation, SpearSettings, spear_attack
from secretflow.ml.nn.fl.attacks.sparse_directions import sparse_units
from secretflow.ml.nn.fl.audit.defences import magnitude_mask
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe, plain_aggregate, weight_update

FEATURES, CLASSES = 30, 5


def deep() -> nn.Module:
    """Three layers behind the first one, of which nothing is asked for."""
    return nn.Sequential(
        nn.Linear(FEATURES, 100), nn.ReLU(), nn.Linear(100, 40), nn.Tanh(), nn.Linear(40, CLASSES)
    )


def smooth() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 100), nn.Sigmoid(), nn.Linear(100, CLASSES))


def narrow() -> nn.Module:
    """So few neurons that rows that resemble each other switch on the same ones."""
    return nn.Sequential(nn.Linear(FEATURES, 20), nn.ReLU(), nn.Linear(20, 2))


def random() -> nn.Module:
    """What was dropped cannot be repeated, so that no row can be put through the net once more."""
    return nn.Sequential(
        nn.Linear(FEATURES, 100), nn.ReLU(), nn.Linear(100, 40), nn.Dropout(0.2), nn.Linear(40, CLASSES)
    )


def observed(
    net: Callable[[], nn.Module], parties: int, batch: int, density: float = 1.0
) -> tuple[torch.Tensor, Observation]:
    """Rows without structure, and the average of the gradients of all parties."""
    torch.manual_seed(parties)
    weights = dict(net().state_dict())
    mask = magnitude_mask(net, weights, 1 - density) if density < 1 else {}
    x, y = torch.randn(parties * batch, FEATURES), torch.randint(CLASSES, (parties * batch,))
    members = [
        PartyStep(net, weights, own, labels, mask)
        for own, labels in zip(x.split(batch), y.split(batch), strict=True)
    ]
    seen = plain_aggregate([weight_update(member, 1, 1.0) for member in members])
    return x, observe(members[0], seen, Knowledge.MASK_KNOWN, classes=CLASSES, parties=parties)


@pytest.mark.parametrize(("parties", "batch"), [(1, 1), (1, 4), (2, 4)])
def test_every_row_of_a_batch_or_average_comes_back_exactly(parties: int, batch: int) -> None:
    x, observation = observed(deep, parties, batch)
    found = spear_attack(observation)
    assert len(found) == len(x)
    assert float(torch.cdist(x.double(), found).min(dim=1).values.max()) < 1e-2


def test_rows_of_unequal_weights_come_back_if_all_do() -> None:
    torch.manual_seed(2)
    weights = dict(deep().state_dict())
    x, y = torch.randn(3, FEATURES), torch.randint(CLASSES, (3,))
    members = [PartyStep(deep, weights, x[k : k + 1], y[k : k + 1], {}) for k in range(3)]
    updates = [weight_update(member, 1, 1.0) for member in members]
    shares = (0.5, 0.3, 0.2)
    seen = [sum(s * a for s, a in zip(shares, arrays, strict=True)) for arrays in zip(*updates, strict=True)]
    found = spear_attack(observe(members[0], seen, Knowledge.MASK_KNOWN, classes=CLASSES, parties=3))
    assert len(found) == 3
    assert float(torch.cdist(x.double(), found).min(dim=1).values.max()) < 1e-2


def test_rows_come_back_through_dropout_if_all_do() -> None:
    x, observation = observed(random, 1, 4)
    found = spear_attack(observation)
    assert len(found) == len(x)
    assert float(torch.cdist(x.double(), found).min(dim=1).values.max()) < 1e-2


def test_rows_come_back_from_a_third_of_the_gradient() -> None:
    x, observation = observed(deep, 1, 3, density=0.35)
    found = spear_attack(observation)
    assert float(torch.cdist(x.double(), found).min(dim=1).values.max()) < 1e-2


def test_neurons_that_the_next_layer_no_longer_hears_say_nothing_against_a_row() -> None:
    torch.manual_seed(5)
    weights = dict(deep().state_dict())
    mask = {"2.weight": torch.ones_like(weights["2.weight"])}
    mask["2.weight"][:, :30] = 0
    x, y = torch.randn(4, FEATURES), torch.randint(CLASSES, (4,))
    party = PartyStep(deep, weights, x, y, mask)
    seen = plain_aggregate([weight_update(party, 1, 1.0)])
    found = spear_attack(observe(party, seen, Knowledge.MASK_KNOWN, classes=CLASSES))
    assert len(found) == 4
    assert float(torch.cdist(x.double(), found).min(dim=1).values.max()) < 1e-2


def test_from_a_twentieth_of_the_gradient_none_comes_back() -> None:
    x, observation = observed(deep, 1, 4, density=0.05)
    found = spear_attack(observation, SpearSettings(starts=400))
    assert len(found) == 0 or float(torch.cdist(x.double(), found).min()) > 0.5


def test_where_every_row_switches_all_neurons_on_none_comes_back() -> None:
    assert len(spear_attack(observed(smooth, 1, 4)[1], SpearSettings(starts=400))) == 0


def test_of_rows_that_few_neurons_do_not_tell_apart_no_mixture_is_given_as_a_row() -> None:
    """The limit of the attack: rows of one label that resemble each other, in a narrow layer."""
    mixtures = 0
    for seed in range(12):
        torch.manual_seed(seed)
        weights = dict(narrow().state_dict())
        x = torch.randn(1, FEATURES) + 0.1 * torch.randn(3, FEATURES)
        party = PartyStep(narrow, weights, x, torch.zeros(3, dtype=torch.int64), {})
        seen = observe(party, weight_update(party, 1, 1.0), Knowledge.MASK_KNOWN, classes=2)
        by_signs = spear_attack(seen, SpearSettings(starts=128, explained=False))
        mixtures += int((torch.cdist(by_signs, x.double()) > 1e-2).all(dim=1).sum())
        found = spear_attack(seen, SpearSettings(starts=128))
        assert bool((torch.cdist(found, x.double()).amin(dim=1) < 1e-2).all() if len(found) else True)
    assert mixtures >= 3


def test_nothing_comes_back_from_noise() -> None:
    observation = observed(deep, 1, 4)[1]
    noise = tuple(torch.randn_like(gradient) for gradient in observation.gradients)
    found = spear_attack(dataclasses.replace(observation, gradients=noise), SpearSettings(starts=400))
    assert found.shape == (0, FEATURES)


def test_a_search_that_would_take_a_year_ends_when_its_time_is_over() -> None:
    settings = SpearSettings(starts=10**12, seconds=0.5)
    assert len(spear_attack(observed(smooth, 1, 4)[1], settings)) == 0
    x, observation = observed(deep, 1, 4, density=0.35)
    assert spear_attack(observation, settings).shape[1:] == x.shape[1:]


def test_what_cannot_be_inverted_is_refused() -> None:
    observation = observed(deep, 1, 4)[1]
    several = dataclasses.replace(observation, local_steps=2, learning_rate=0.1)
    with pytest.raises(ValueError, match="local_steps must be 1"):
        spear_attack(several)
    with pytest.raises(ValueError, match=r"batch_size must be below the number of neurons .* 100"):
        spear_attack(dataclasses.replace(observation, batch_size=100))


def test_most_sparse_vectors_of_a_subspace_are_found_and_none_made_up() -> None:
    generator = torch.Generator().manual_seed(3)
    planted = torch.randn(120, 10, generator=generator, dtype=torch.float64)
    planted[torch.rand(120, 10, generator=generator) < 0.5] = 0
    basis = torch.linalg.qr(planted).Q
    starts = torch.randn(60, 10, generator=generator, dtype=torch.float64)
    units = sparse_units(basis, starts)
    torch.testing.assert_close(units.norm(dim=1), torch.ones(60, dtype=torch.float64))
    wanted = planted / planted.norm(dim=0)
    cosines = (units @ basis.T @ wanted).abs()
    assert int((cosines.amax(dim=0) > 1 - 1e-6).sum()) >= 5
    dense = torch.linalg.qr(torch.randn(120, 10, generator=generator, dtype=torch.float64)).Q
    values = sparse_units(dense, starts) @ dense.T
    assert int((values.abs() < 1e-6).sum(dim=1).max()) < 30
