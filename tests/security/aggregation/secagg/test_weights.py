"""AggregationWeights: the parts of the total weight, and the weights that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.weights import AggregationWeights

RULES = Rules(Ring(32, 20), 1)


def make(weights: list[Any], position: int, parties: int) -> AggregationWeights:
    return AggregationWeights.make(weights, position, parties, RULES)


def test_no_weights_are_equal_weights() -> None:
    shares = make([], 1, 4)
    assert shares.own == 0.25 and shares.exact


def test_a_share_is_the_own_part_of_the_total() -> None:
    assert make([1, 3], 1, 2).own == 0.75
    assert make([0.5, 1.5], 0, 2).own == 0.25
    np.testing.assert_array_equal(make([np.array([1, 3]), np.array([3, 1])], 0, 2).own, [0.25, 0.75])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.float16])
def test_weights_of_narrow_types_do_not_overflow(dtype: Any) -> None:
    shares = make([dtype(120)] * 3 + [dtype(np.finfo("f2").max if dtype is np.float16 else 120)] * 2, 0, 5)
    assert shares.total == 3 * 120 + 2 * (65504 if dtype is np.float16 else 120)


def test_only_integers_are_exact() -> None:
    assert make([1, np.uint8(2)], 0, 2).exact
    assert not make([1, 2.0], 0, 2).exact


@pytest.mark.parametrize("bad", [-1, -0.5, np.nan, np.inf, "3", None, True, 2**60, np.array([1, -1])])
def test_a_weight_that_is_no_weight_is_refused(bad: Any) -> None:
    with pytest.raises(AggregationError, match=r"weights\[1\]"):
        make([1, bad], 0, 2)


def test_weights_of_nothing_are_refused() -> None:
    with pytest.raises(AggregationError, match="must add up to more than 0"):
        make([0, 0], 0, 2)
    with pytest.raises(AggregationError, match="must add up to more than 0"):
        make([np.array([0, 1]), np.array([0, 1])], 0, 2)


@pytest.mark.parametrize("bad", [0, 0.0, np.array([1, 1])])
def test_with_masks_a_weight_is_one_positive_number(bad: Any) -> None:
    weights = make([1, bad], 1, 2)
    weights.check_counting(RULES, masked=False)
    with pytest.raises(AggregationError, match="one positive number"):
        weights.check_counting(RULES, masked=True)


@pytest.mark.parametrize(
    ("weights", "counting"),
    [
        ([], 3),
        ([1, 1, 1], 3),
        ([0, 0, 1], 1),
        ([1e-9, 1e-9, 1], 1),
        ([1, 100, 198], 3),
        ([1, 150, 150], 2),
        ([np.array([1, 0]), np.array([1, 1]), np.array([1, 1])], 2),
        ([np.array([[0], [1]]), np.array([1, 1]), 1], 2),
    ],
)
def test_a_party_counts_with_a_hundredth_of_an_equal_share_at_every_element(
    weights: list[Any], counting: int
) -> None:
    made = AggregationWeights.make(weights, 0, 3, Rules(Ring(64, 40), 3, min_share=0.01))
    assert made.counting == counting
    if counting < 3:
        with pytest.raises(AggregationError, match=f"min_contributors=3.*got {counting}"):
            made.check_counting(Rules(Ring(64, 40), 3), masked=False)


def test_shares_are_equal_when_everybodys_weights_are() -> None:
    shares = make([1, 2], 0, 2)
    assert shares.equal(make([1, 2], 0, 2))
    assert not shares.equal(make([1, 3], 0, 2))
    assert not shares.equal(make([2, 4], 0, 2))  # asked again, no harm
