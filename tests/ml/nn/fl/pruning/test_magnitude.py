"""Of one layer the smallest living weights go, as many as asked for, and they stay pruned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretflow.ml.nn.fl.pruning import (
    prune_by_magnitude,
    removals,
)
from secretflow.ml.nn.fl.pruning.masks import smallest

from .strategies import layers


@given(layers(), st.integers(1, 300))
def test_exactly_as_many_live_as_asked_for_or_as_lived_before(
    layer: tuple[np.ndarray, np.ndarray], keep: int
) -> None:
    weight, mask = layer
    assert prune_by_magnitude(weight, mask, keep).sum() == min(keep, mask.sum())


@given(layers(), st.integers(1, 300))
def test_what_is_pruned_stays_pruned(layer: tuple[np.ndarray, np.ndarray], keep: int) -> None:
    weight, mask = layer
    assert (prune_by_magnitude(weight, mask, keep) <= mask).all()


@given(layers(), st.integers(1, 300))
def test_pruning_twice_to_the_same_number_changes_nothing(
    layer: tuple[np.ndarray, np.ndarray], keep: int
) -> None:
    weight, mask = layer
    once = prune_by_magnitude(weight, mask, keep)
    assert np.array_equal(prune_by_magnitude(weight, once, keep), once)


@given(layers(), st.integers(1, 300))
def test_no_survivor_is_smaller_than_a_removed_weight(
    layer: tuple[np.ndarray, np.ndarray], keep: int
) -> None:
    weight, mask = layer
    new = prune_by_magnitude(weight, mask, keep)
    removed, kept = np.abs(weight[(mask == 1) & (new == 0)]), np.abs(weight[new == 1])
    assert not removed.size or removed.max() <= kept.min(initial=np.inf)


def test_of_equal_magnitudes_the_first_go_first() -> None:
    mask = prune_by_magnitude(np.full((2, 3), -0.5, np.float32), np.ones((2, 3), np.uint8), 2)
    assert mask.tolist() == [[0, 0, 0], [0, 1, 1]]


def test_the_mask_given_is_left_as_it_is() -> None:
    mask = np.ones((2, 2), np.uint8)
    prune_by_magnitude(np.arange(4.0).reshape(2, 2), mask, 1)
    assert mask.all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_living_weight_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        prune_by_magnitude(np.array([[1.0, value]]), np.ones((1, 2), np.uint8), 1)


def test_a_pruned_weight_may_be_anything() -> None:
    mask = prune_by_magnitude(np.array([[1.0, np.nan]]), np.array([[1, 0]], np.uint8), 1)
    assert mask.tolist() == [[1, 0]]


def test_a_layer_cannot_die() -> None:
    with pytest.raises(ValueError, match=r"keep must be at least 1.*got 0"):
        prune_by_magnitude(np.ones((2, 2)), np.ones((2, 2), np.uint8), 0)
    assert removals([1, 1], 99, 0) == [0, 0]


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\), got \(2, 3\)"):
        prune_by_magnitude(np.ones((2, 2)), np.ones((2, 3), np.uint8), 1)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, float("inf")]), max_size=40), st.integers(-1, 45))
def test_the_smallest_are_those_that_a_stable_sort_puts_first(values: list[float], count: int) -> None:
    array = np.array(values)
    expected = np.argsort(array, kind="stable")[: max(0, count)]
    assert sorted(smallest(array, count)) == sorted(expected)
