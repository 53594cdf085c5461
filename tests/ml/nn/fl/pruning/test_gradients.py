"""Pruning by gradients: weights that come back, and the criterion SNIP."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretflow.ml.nn.fl.pruning import (
    PruneSettings,
    exchange,
    full_mask,
    pruned_masks,
)

from .strategies import layers


@given(layers(), st.floats(0, 99), st.integers(0, 2**32 - 1))
def test_an_exchange_keeps_the_number_and_revives_the_largest_gradients(
    layer: tuple[np.ndarray, np.ndarray], percent: float, seed: int
) -> None:
    weight, mask = layer
    mask.reshape(-1)[0] = 1
    gradient = np.random.default_rng(seed).permutation(weight.size).reshape(weight.shape).astype("f4")
    new = exchange(weight, mask, gradient, percent)
    assert new.sum() == mask.sum()
    revived, left = gradient[(mask == 0) & (new == 1)], gradient[new == 0]
    assert not revived.size or not left.size or revived.min() > left.max()


def test_an_exchange_takes_the_smallest_out() -> None:
    weight, mask = np.array([[3.0, 1.0, 2.0, 0.0]]), np.array([[1, 1, 1, 0]], np.uint8)
    gradient = np.array([[0.0, 0.1, 0.0, -9.0]])
    assert exchange(weight, mask, gradient, 34).tolist() == [[1, 0, 1, 1]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="gradient must be finite, got NaN or infinity"):
        exchange(np.ones((1, 2)), np.ones((1, 2), np.uint8), np.array([[1.0, value]]), 10)


def test_regrowing_needs_gradients() -> None:
    with pytest.raises(ValueError, match="regrow_percent must be 0 without gradients"):
        pruned_masks({"a": np.ones((2, 2))}, full_mask({"a": (2, 2)}), PruneSettings(regrow_percent=10), 1)


def test_snip_prunes_what_changes_the_loss_least() -> None:
    weight, gradient = np.array([[4.0, -1.0], [3.0, -2.0]]), np.array([[0.1, -5.0], [-1.0, 0.0]])
    new = pruned_masks(
        {"a": weight},
        full_mask({"a": (2, 2)}),
        PruneSettings(prune_criterion="snip", prune_percent=50),
        1,
        {"a": gradient},
    )
    assert new["a"].tolist() == [[0, 1], [1, 0]]  # |w g| is 0.4, 5, 3 and 0; by magnitude -1 and -2 would go


def test_a_criterion_of_gradients_is_refused_where_there_are_none_or_all_prune_alike() -> None:
    snip = PruneSettings(prune_criterion="snip")
    ones, weights = full_mask({"a": (2, 2)}), {"a": np.ones((2, 2))}
    with pytest.raises(
        ValueError, match=r"prune_criterion must be one that needs no gradients, .*got 'snip'"
    ):
        pruned_masks(weights, ones, snip, 1)
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got \(2, 3\)"):
        pruned_masks(weights, ones, snip, 1, {"a": np.ones((2, 3))})
    with pytest.raises(
        ValueError, match=r"prune_criterion must be .* with mask_scope='global', .*got 'snip'"
    ):
        PruneSettings(prune_criterion="snip", mask_scope="global")
