"""How many weights a step takes from each layer, and what lives after it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretflow.ml.nn.fl.pruning import (
    density,
    full_mask,
    removals,
    removals_to_rate,
)

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


def test_the_density_counts_prunable_weights_only() -> None:
    assert density({"a": np.array([[1, 0], [0, 0]], np.uint8)}) == 0.25
    assert density(full_mask({"a": (3, 2)})) == 1.0
    with pytest.raises(ValueError, match="at least one prunable weight"):
        density({})


@given(st.lists(st.integers(1, 400), min_size=1, max_size=5), st.floats(0.01, 1))
def test_every_layer_comes_to_the_same_rate_but_for_rounding(sizes: list[int], rate: float) -> None:
    floor = int(np.floor(rate * sum(sizes) + 1e-9))
    kept = [
        size - gone for size, gone in zip(sizes, removals_to_rate(sizes, sizes, rate, floor), strict=True)
    ]
    assert sum(kept) == max(floor, len(sizes)) or min(kept) == 1
    largest = int(np.argmax(sizes))
    for k, (count, size) in enumerate(zip(kept, sizes, strict=True)):
        assert abs(count - rate * size) <= (len(sizes) + 1 if k == largest else 1)
