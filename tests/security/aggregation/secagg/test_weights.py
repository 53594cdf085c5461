"""AggregationWeights: the parts of the total weight, and the weights that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.weights import AggregationWeights


def test_no_weights_are_equal_weights() -> None:
    shares = AggregationWeights.make([], 1, 4, masked=True)
    assert shares.own == 0.25 and shares.exact


def test_a_share_is_the_own_part_of_the_total() -> None:
    assert AggregationWeights.make([1, 3], 1, 2, masked=True).own == 0.75
    assert AggregationWeights.make([0.5, 1.5], 0, 2, masked=False).own == 0.25
    np.testing.assert_array_equal(
        AggregationWeights.make([np.array([1, 3]), np.array([3, 1])], 0, 2, masked=False).own, [0.25, 0.75]
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.float16])
def test_weights_of_narrow_types_do_not_overflow(dtype: Any) -> None:
    shares = AggregationWeights.make(
        [dtype(120)] * 3 + [dtype(np.finfo("f2").max if dtype is np.float16 else 120)] * 2, 0, 5, False
    )
    assert shares.total == 3 * 120 + 2 * (65504 if dtype is np.float16 else 120)


def test_only_integers_are_exact() -> None:
    assert AggregationWeights.make([1, np.uint8(2)], 0, 2, masked=False).exact
    assert not AggregationWeights.make([1, 2.0], 0, 2, masked=False).exact


@pytest.mark.parametrize("bad", [-1, -0.5, np.nan, np.inf, "3", None, True, 2**60, np.array([1, -1])])
@pytest.mark.parametrize("masked", [False, True])
def test_a_weight_that_is_no_weight_is_refused(bad: Any, masked: bool) -> None:
    with pytest.raises(AggregationError, match=r"weights\[1\]"):
        AggregationWeights.make([1, bad], 0, 2, masked)


def test_weights_of_nothing_are_refused() -> None:
    with pytest.raises(AggregationError, match="add up to 0"):
        AggregationWeights.make([0, 0], 0, 2, masked=False)
    with pytest.raises(AggregationError, match="add up to 0"):
        AggregationWeights.make([np.array([0, 1]), np.array([0, 1])], 0, 2, masked=False)


@pytest.mark.parametrize("bad", [0, 0.0, np.array([1, 1])])
def test_with_masks_a_weight_is_one_positive_number(bad: Any) -> None:
    AggregationWeights.make([1, bad], 0, 2, masked=False)
    with pytest.raises(AggregationError, match="one positive number"):
        AggregationWeights.make([1, bad], 0, 2, masked=True)


def test_shares_are_equal_when_everybodys_weights_are() -> None:
    shares = AggregationWeights.make([1, 2], 0, 2, masked=True)
    assert shares.equal(AggregationWeights.make([1, 2], 0, 2, masked=True))
    assert not shares.equal(AggregationWeights.make([1, 3], 0, 2, masked=True))
    assert not shares.equal(AggregationWeights.make([2, 4], 0, 2, masked=True))  # asked again, no harm
