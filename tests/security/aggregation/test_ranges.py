"""Integers are added exactly; numbers, integers and weights that do not fit are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import secretflow as sf


def test_integers_that_no_float_could_hold_are_added_exactly(consortium: Any) -> None:
    large = [np.array([2**60 + 1, -(2**60) - 1]), np.array([1, -(2**61) + 7])]
    aggregator = consortium.aggregator(2)
    np.testing.assert_array_equal(
        sf.reveal(aggregator.sum(consortium.held(large), axis=0)), [2**60 + 2, -(2**61) - 2**60 + 6]
    )
    for dtype in (np.uint64, np.uint8):
        weights = [np.array([1, 1], dtype), np.array([1, 1], dtype)]
        # Odd halves of 54 bits: through float64 the last bit of the product would be lost.
        odd = [np.array([2**54 + 1, 0]), np.array([-(2**54), 0])]
        result = sf.reveal(aggregator.average(consortium.held(odd), axis=0, weights=weights))
        np.testing.assert_array_equal(result, [0.5, 0])


@pytest.mark.parametrize(
    ("value", "weights"), [(2**62, None), (-(2**63), None), (2**60, [1, 4]), (2**62, [0.5, 0.5])]
)
def test_integers_that_do_not_fit_are_refused(consortium: Any, value: int, weights: Any) -> None:
    data = consortium.held([np.array([1]), np.array([value])])
    aggregator = consortium.aggregator(2)
    with pytest.raises(AssertionError, match=r"data\[0\] of bob does not fit.*largest magnitude is"):
        aggregator.average(data, axis=0, weights=weights)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.nan, "must hold finite numbers, got NaN"),
        (np.inf, "must hold finite numbers, got infinity"),
        (-2048.0, "does not fit into 32 bits with 20 .*magnitude is"),
    ],
)
def test_a_number_that_does_not_fit_names_party_array_and_magnitude(
    consortium: Any, bad: float, message: str
) -> None:
    data = consortium.held([[np.zeros(2), np.zeros(3)], [np.zeros(2), np.array([0, bad, 1])]])
    for call in (
        lambda a: a.average(data, axis=0),
        lambda a: a.sum(data, axis=0),
        lambda a: a.average(data, axis=0, weights=[np.array(1.0), np.ones(1)]),
    ):
        with pytest.raises(ValueError, match=rf"data\[1\] of bob {message}"):
            call(consortium.aggregator(2))


@pytest.mark.parametrize("dtype", ["f8", "i8"])
@pytest.mark.parametrize("weights", [[1, 2], [0.5, 1.5]])
def test_an_array_of_weights_may_not_be_larger_than_the_data(
    consortium: Any, dtype: str, weights: list[float]
) -> None:
    data = consortium.held([np.ones(1, dtype), np.ones(1, dtype)])
    for shape in ((3,), (2, 2)):
        with pytest.raises(
            AssertionError, match=r"weights must fit data\[0\] of shape \(1,\), got one of shape"
        ):
            consortium.aggregator(2).average(data, 0, weights=[np.full(shape, weight) for weight in weights])
