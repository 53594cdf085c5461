"""The mathematics of pruning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secretflow.ml.nn.fl.pruning import (
    PruneSettings,
    full_mask,
    living_rate,
    prune_by_magnitude,
    removals,
)

WEIGHTS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=6), elements=st.floats(-4, 4, width=32)
)


@st.composite
def layers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    weight = draw(WEIGHTS)
    mask = draw(hnp.arrays(np.uint8, weight.shape, elements=st.integers(0, 1)))
    return weight, mask


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
    with pytest.raises(ValueError, match="NaN or infinite"):
        prune_by_magnitude(np.array([[1.0, value]]), np.ones((1, 2), np.uint8), 1)


def test_a_pruned_weight_may_be_anything() -> None:
    mask = prune_by_magnitude(np.array([[1.0, np.nan]]), np.array([[1, 0]], np.uint8), 1)
    assert mask.tolist() == [[1, 0]]


def test_a_layer_cannot_die() -> None:
    with pytest.raises(ValueError, match="keep=0"):
        prune_by_magnitude(np.ones((2, 2)), np.ones((2, 2), np.uint8), 0)
    assert removals([1, 1], 99, 0) == [0, 0]


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 2\)"):
        prune_by_magnitude(np.ones((2, 2)), np.ones((2, 3), np.uint8), 1)


LIVING = st.lists(st.integers(1, 5000), min_size=1, max_size=6)


def test_ten_steps_of_five_percent_leave_sixty_percent() -> None:
    living = [27, 1920]
    for _ in range(10):
        living = [count - gone for count, gone in zip(living, removals(living, 5, 195), strict=True)]
    assert living == [19, 1153]
    assert sum(living) / 1947 == pytest.approx(0.95**10, abs=0.004)


@given(LIVING, st.floats(0.5, 99))
def test_a_step_takes_no_more_than_its_percent_of_a_layer(living: list[int], percent: float) -> None:
    gone = removals(living, percent, 0)
    share = [part for part, count in zip(gone, living, strict=True) if part > count * percent / 100]
    assert not share or (sum(gone) == 1 and max(living) * percent < 100)


@given(LIVING, st.floats(0.5, 99), st.floats(0.01, 1))
def test_steps_land_exactly_on_the_floor(living: list[int], percent: float, rate: float) -> None:
    floor = max(len(living), round(sum(living) * rate))
    steps = 0
    while sum(living) > floor:
        gone = removals(living, percent, floor)
        assert sum(gone) > 0, "every step makes progress"
        living = [count - part for count, part in zip(living, gone, strict=True)]
        assert min(living) >= 1
        steps += 1
        assert steps < 10_000
    assert sum(living) == floor
    assert not any(removals(living, percent, floor))


def test_a_trimmed_step_takes_from_each_layer_in_proportion() -> None:
    assert removals([1000, 3000], 10, 3800) == [50, 150]


def test_the_living_rate_counts_prunable_weights_only() -> None:
    assert living_rate([np.array([[1, 0], [0, 0]], np.uint8), None]) == 0.25
    assert living_rate(full_mask([np.zeros((3, 2)), None])) == 1.0
    with pytest.raises(ValueError, match="no living rate"):
        living_rate([None])


@pytest.mark.parametrize(
    ("setting", "value", "error"),
    [
        ("prune_end_rate", 0, ValueError),
        ("prune_end_rate", 1.1, ValueError),
        ("prune_end_rate", -0.1, ValueError),
        ("prune_end_rate", float("nan"), ValueError),
        ("prune_end_rate", "0.1", TypeError),
        ("prune_end_rate", True, TypeError),
        ("prune_percent", 0, ValueError),
        ("prune_percent", 100, ValueError),
        ("prune_percent", None, TypeError),
        ("mask_scope", "galaxy", ValueError),
    ],
)
def test_a_bad_setting_is_named_with_its_value(setting: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"{setting}={value!r} is not allowed"):
        PruneSettings(**{setting: value})  # type: ignore[arg-type]
