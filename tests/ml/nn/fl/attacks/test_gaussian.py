"""A Gaussian of public rows, alone, beside the closed form and in a search."""

import dataclasses

import pytest
import torch

from secretflow.ml.nn.fl.attacks import (
    LocalPrior,
    PriorSettings,
    closed_form_attack,
    fit_gaussian,
    prior_attack,
)
from secretflow.ml.nn.fl.audit.views import Knowledge, observe, party_gradient
from tests.ml.nn.fl.attacks.conftest import tiny_perceptron
from tests.ml.nn.fl.attacks.test_inverters import rows_of_a_kind

UNKNOWN = float("inf")


def observed(party):
    return observe(party, party_gradient(party), Knowledge.MASK_KNOWN, classes=3)


def test_the_conditional_mean_is_that_of_the_whole_covariance():
    torch.manual_seed(0)
    rows = torch.randn(50, 6).double() @ torch.randn(6, 6).double()
    prior = fit_gaussian(rows, rank=3)
    covariance = prior.basis @ prior.basis.T + prior.variance.diag()
    value = torch.randn(6).double()
    noise = torch.tensor([0.0, UNKNOWN, 0.3, 0.0, UNKNOWN, 2.0]).double()
    told = noise.isfinite()
    inner = covariance[told][:, told] + noise[told].diag()
    gain = covariance[:, told] @ torch.linalg.inv(inner)
    expected = prior.mean + gain @ (value - prior.mean)[told]
    found = prior.conditional_mean(value, noise)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found[[0, 3]], value[[0, 3]])


def test_without_a_known_number_the_mean_is_expected():
    prior = fit_gaussian(rows_of_a_kind(50, 1).x, rank=5)
    found = prior.conditional_mean(torch.zeros(16), torch.full((16,), UNKNOWN))
    torch.testing.assert_close(found, prior.mean)


def test_the_prior_has_the_variances_of_the_rows():
    rows = rows_of_a_kind(200, 1).x.flatten(1)
    prior = fit_gaussian(rows, rank=4)
    torch.testing.assert_close(prior.basis.square().sum(dim=1) + prior.variance, rows.var(dim=0))
    assert fit_gaussian(rows[:3], rank=9).rank == 2


def test_numbers_without_a_living_path_are_filled_in(make_party):
    public = fit_gaussian(rows_of_a_kind(500, 2).x)
    filled, blank, mean = 0.0, 0.0, 0.0
    for seed in range(6):
        party = dataclasses.replace(
            make_party(tiny_perceptron, pruned=0.8, seed=seed), x=rows_of_a_kind(2, seed + 10).x[:1]
        )
        with_prior, without = (
            closed_form_attack([observed(party)], prior=prior)[0] for prior in (public, None)
        )
        assert with_prior.loss == without.loss > 0
        known = without.images != 0
        torch.testing.assert_close(with_prior.images[known], party.x[known])
        filled += float((with_prior.images - party.x)[~known].square().sum())
        blank += float((without.images - party.x)[~known].square().sum())
        mean += float((public.mean.view_as(party.x) - party.x)[~known].square().sum())
    assert filled < 0.3 * mean < 0.3 * blank


def test_without_any_gradient_the_closed_form_expects_the_mean(make_party):
    known = observed(make_party(tiny_perceptron))
    nothing = dataclasses.replace(known, gradients=tuple(0 * array for array in known.gradients))
    prior = fit_gaussian(rows_of_a_kind(50, 2).x)
    found = closed_form_attack([nothing], prior=prior)[0]
    torch.testing.assert_close(found.images.flatten(), prior.mean)
    assert found.diverged == 1


def test_the_most_probable_row_is_found_where_few_coordinates_live(make_party):
    public = rows_of_a_kind(500, 2).x
    prior = fit_gaussian(public)
    party = make_party(pruned=0.8)
    truth = rows_of_a_kind(6, 3).x
    seen = [observed(dataclasses.replace(party, x=row[None])) for row in truth]
    found = torch.cat([each.images for each in prior_attack(seen, prior)])
    chance = float((truth - public.mean(dim=0)).square().mean())
    assert float((found - truth).square().mean()) < 0.2 * chance


def test_both_rows_of_a_batch_are_found(make_party):
    public = rows_of_a_kind(500, 2).x
    party = dataclasses.replace(make_party(batch=2, pruned=0.3), x=rows_of_a_kind(2, 3).x)
    found = prior_attack([observed(party)], fit_gaussian(public))[0]
    order = (torch.cdist(found.images.flatten(1), party.x.flatten(1))).argmin(dim=1)
    assert sorted(order.tolist()) == [0, 1]
    chance = float((party.x - public.mean(dim=0)).square().mean())
    assert float((found.images - party.x[order]).square().mean()) < 0.2 * chance


def test_a_gradient_that_shows_nothing_gives_the_mean_row(make_party):
    prior = fit_gaussian(rows_of_a_kind(500, 2).x)
    party = make_party()
    hidden = {name: torch.zeros_like(value) for name, value in party.weights.items()}
    seen = dataclasses.replace(observed(party), compared=hidden)
    found = prior_attack([seen], prior)[0]
    torch.testing.assert_close(found.images.flatten(), prior.mean, rtol=1e-6, atol=1e-6)


def test_what_a_prior_cannot_do_is_refused(make_party):
    prior = fit_gaussian(rows_of_a_kind(50, 2).x)
    with pytest.raises(ValueError, match="prior must be of rows of 16 numbers, got 4"):
        prior_attack([observed(make_party())], fit_gaussian(torch.rand(9, 4)))
    with pytest.raises(ValueError, match="noise must be a number above 0"):
        PriorSettings(noise=0.0)
    with pytest.raises(ValueError, match="noise must be variances of at least 0"):
        prior.conditional_mean(torch.zeros(16), torch.full((16,), -1.0))
    with pytest.raises(ValueError, match="rows must be at least two rows"):
        fit_gaussian(torch.rand(1, 4))


def test_on_a_curve_the_nearest_rows_tell_more_than_all():
    torch.manual_seed(0)
    where = 2 * torch.rand(620, 1).double() - 1
    rows = torch.cat([where, where.square(), where.abs()], dim=1)
    public, own = rows[:600], rows[600:]
    noise = torch.tensor([0.0, UNKNOWN, UNKNOWN]).double()

    def error(prior):
        found = torch.stack([prior.conditional_mean(row, noise) for row in own])
        torch.testing.assert_close(found[:, 0], own[:, 0])
        return float((found - own).square().mean())

    assert error(LocalPrior(public, neighbours=40)) < 0.01 * error(fit_gaussian(public))


def test_a_local_prior_refuses_what_is_not_like_its_rows():
    with pytest.raises(ValueError, match=r"values must be of shape \(16,\)"):
        LocalPrior(torch.rand(5, 16)).conditional_mean(torch.zeros(3), torch.zeros(3))
