"""Attackers who learn from public rows."""

import dataclasses

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.attacks import (
    LearnedSettings,
    PublicRows,
    RidgeSettings,
    fit_learned,
    fit_ridge,
    learned_attack,
    ridge_attack,
)
from secretflow.ml.nn.fl.attacks.inverter import Features
from secretflow.ml.nn.fl.attacks.public import flat, living_coordinates, public_gradients
from secretflow.ml.nn.fl.audit.views import Knowledge, observe, party_gradient, weight_update

SMALL = LearnedSettings(width=64, epochs=30, batch=32, dropout=0.0, learning_rate=3e-3)
ATTACKS = [
    lambda seen, public, **how: ridge_attack(seen, public, **how),
    lambda seen, public, **how: learned_attack(seen, public, SMALL, **how),
]
both = pytest.mark.parametrize("attack", ATTACKS, ids=["ridge", "learned"])


def rows_of_a_kind(count, seed):
    """Images that a few numbers describe, as those of the world do."""
    mixing = torch.randn(3, 16, generator=torch.Generator().manual_seed(7))
    drawn = torch.Generator().manual_seed(seed)
    x = (torch.randn(count, 3, generator=drawn) @ mixing).sigmoid().view(count, 1, 4, 4)
    return PublicRows(x.double(), torch.randint(3, (count,), generator=drawn))


def observed(party, rows):
    """Each row alone, in the net of one party."""
    parties = [
        dataclasses.replace(party, x=rows.x[k : k + 1], y=rows.y[k : k + 1]) for k in range(len(rows.x))
    ]
    return [observe(one, party_gradient(one), Knowledge.MASK_KNOWN, classes=3) for one in parties]


def error(found, rows):
    return float((torch.cat([each.images for each in found]) - rows.x).square().mean())


@both
def test_rows_come_back_from_a_pruned_gradient(make_party, attack):
    rows, public = rows_of_a_kind(10, 1), rows_of_a_kind(600, 2)
    found = attack(observed(make_party(pruned=0.5), rows), public)
    assert error(found, rows) < 0.15 * float((rows.x - public.x.mean(dim=0)).square().mean())
    assert torch.equal(torch.cat([each.labels for each in found]), rows.y)


@both
def test_a_gradient_that_says_nothing_gives_no_more_than_the_mean_row(make_party, attack):
    rows, public = rows_of_a_kind(40, 1), rows_of_a_kind(600, 2)

    def noise(arrays):
        return tuple(torch.randn_like(array) for array in arrays)

    seen = [dataclasses.replace(o, gradients=noise(o.gradients)) for o in observed(make_party(), rows)]
    chance = float((rows.x - public.x.mean(dim=0)).square().mean())
    assert error(attack(seen, public, distort=noise), rows) > 0.9 * chance


def sure():
    """A net whose gradients differ in length by orders of magnitude, and whose scores are no logits."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.Softmax(1)).double()


@both
def test_rows_come_back_where_lengths_differ_widely_and_no_label_can_be_read(make_party, attack):
    rows, public = rows_of_a_kind(30, 1), rows_of_a_kind(900, 2)
    party = make_party(sure)
    party = dataclasses.replace(party, weights={name: 10 * value for name, value in party.weights.items()})
    seen = observed(party, rows)
    lengths = torch.stack([sum(g.square().sum() for g in each.gradients).sqrt() for each in seen])
    assert lengths.max() > 30 * lengths.min()
    chance = float((rows.x - public.x.mean(dim=0)).square().mean())
    assert error(attack(seen, public), rows) < 0.5 * chance


def test_public_gradients_are_those_that_a_party_would_upload(make_party):
    rows, party = rows_of_a_kind(5, 1), make_party(pruned=0.5)
    seen = observed(party, rows)
    living = living_coordinates(seen[0])
    assert int(living.sum()) < living.numel()
    own = torch.stack([flat(each.gradients, living) for each in seen])
    torch.testing.assert_close(torch.cat(list(public_gradients(seen[0], rows))), own)


def test_public_gradients_follow_the_local_steps(make_party):
    rows, party = rows_of_a_kind(1 + 1, 1), make_party(pruned=0.5)
    one = dataclasses.replace(party, x=rows.x[:1], y=rows.y[:1])
    seen = observe(
        one,
        weight_update(one, 3, 0.5),
        Knowledge.MASK_KNOWN,
        classes=3,
        local_steps=3,
        learning_rate=0.5,
    )
    own = flat(seen.gradients, living_coordinates(seen))
    torch.testing.assert_close(next(iter(public_gradients(seen, rows)))[0], own)


def test_a_sketch_keeps_no_more_features_than_asked_for(make_party):
    rows, public = rows_of_a_kind(10, 1), rows_of_a_kind(600, 2)
    seen = observed(make_party(), rows)
    few = ridge_attack(seen, public, RidgeSettings(features=12))
    chance = float((rows.x - public.x.mean(dim=0)).square().mean())
    assert error(few, rows) < 0.5 * chance
    gradients = torch.cat(list(public_gradients(seen[0], public)))
    assert Features(gradients, 12, 0)(gradients).shape == (600, 12)


def test_a_fitted_inverter_inverts_many_rows_at_once(make_party):
    rows, public = rows_of_a_kind(50, 1), rows_of_a_kind(600, 2)
    seen = observed(make_party(), rows)
    gradients = torch.stack([flat(each.gradients, living_coordinates(each)) for each in seen])
    for inverter in (fit_ridge(seen[0], public), fit_learned(seen[0], public, SMALL)):
        together = inverter.invert(gradients, rows.y)
        alone = torch.cat(
            [inverter.invert(*one) for one in zip(gradients.split(1), rows.y.split(1), strict=True)]
        )
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_what_one_inverter_cannot_invert_is_refused(make_party):
    rows, public = rows_of_a_kind(2, 1), rows_of_a_kind(20, 2)
    one, other = observed(make_party(), rows), observed(make_party(seed=2), rows)
    with pytest.raises(ValueError, match="weights must be those of the first observation"):
        ridge_attack([one[0], other[0]], public)
    pruned = dataclasses.replace(make_party(), mask=make_party(pruned=0.5).mask)
    with pytest.raises(ValueError, match="must be th"):
        ridge_attack([one[0], *observed(pruned, rows)], public)
    with pytest.raises(ValueError, match="batch_size must be 1"):
        ridge_attack([dataclasses.replace(one[0], batch_size=2)], public)
    with pytest.raises(ValueError, match=r"x must be rows of shape \(1, 4, 4\)"):
        ridge_attack(one, PublicRows(torch.rand(4, 1, 5, 5), torch.zeros(4, dtype=torch.long)))
    with pytest.raises(ValueError, match="y must be from 0 to 2"):
        ridge_attack(one, PublicRows(public.x, public.y + 1))
    with pytest.raises(ValueError, match="x must be at least two rows"):
        PublicRows(public.x[:1], public.y[:1])
