"""A drop-in for upstream's SecureAggregator: the same calls, the same numbers.

Where ours differs on purpose:

* upstream gives float64 whatever came in; ours keeps a float dtype, as upstream's PlainAggregator does;
* upstream cannot add up the elements of floats (``axis=None`` fails inside its own decoding); ours can;
* upstream multiplies by one number given for all weights and never divides by it again; a weight that is the
  same for all changes no average here;
* upstream wants one dtype for all arrays of a list; ours takes a model with integer counters among floats;
* upstream cuts fixed point off at 2^-18, ours rounds at 2^-20.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import secretflow as sf

from .numbers import FLOATS, INPUTS, INTEGERS, RNG, arrays, assert_same


@pytest.mark.parametrize("name", INPUTS)
def test_sums_and_averages_element_by_element_are_upstreams(both: Any, consortium: Any, name: str) -> None:
    ours, theirs = both
    data = consortium.held(INPUTS[name])
    assert_same(ours.sum(data, axis=0), theirs.sum(data, axis=0))
    assert_same(ours.average(data, axis=0), theirs.average(data, axis=0))
    for weights in ([1, 2, 3], (3, 2, 1), np.array([1, 1, 2])):
        assert_same(
            ours.average(data, axis=0, weights=weights), theirs.average(data, axis=0, weights=weights)
        )
        held = consortium.held(list(weights))
        assert_same(ours.average(data, axis=0, weights=held), theirs.average(data, axis=0, weights=held))


@pytest.mark.parametrize("name", [name for name in FLOATS if "float16" not in name])
def test_float_weights_are_upstreams(both: Any, consortium: Any, name: str) -> None:
    ours, theirs = both
    data = consortium.held(INPUTS[name])
    weights = [0.5, 1.5, 2.0]
    assert_same(ours.average(data, 0, weights), theirs.average(data, 0, weights))


@pytest.mark.parametrize("name", INTEGERS)
def test_float_weights_of_integers_are_upstreams_within_fixed_point(
    both: Any, consortium: Any, name: str
) -> None:
    ours, _ = both
    data = consortium.held(INPUTS[name])
    # Of a product that is no integer upstream adds an int64 pad to a float64 and loses its lower bits.
    weights = [0.5, 1.5, 2.0]
    result, reference = sf.reveal(ours.average(data, 0, weights)), INPUTS[name]
    if isinstance(reference[0], list):
        result, reference = result[0], [x[0] for x in reference]
    np.testing.assert_allclose(result, np.average(np.stack(reference), 0, weights), atol=3 * 2.0**-21)


@pytest.mark.parametrize("name", ["float32 arrays", "float64 arrays", "int64 arrays"])
@pytest.mark.parametrize("shape", [(3, 4), (4,), (3, 1)])
def test_weights_for_each_element_are_upstreams(
    both: Any, consortium: Any, name: str, shape: tuple[int, ...]
) -> None:
    ours, theirs = both
    data = consortium.held(INPUTS[name])
    weights = [RNG.integers(1, 9, shape) for _ in range(3)]
    assert_same(ours.average(data, 0, weights), theirs.average(data, 0, weights))
    held = consortium.held(weights)
    assert_same(ours.average(data, 0, held), theirs.average(data, 0, held))


@pytest.mark.parametrize("name", INTEGERS)
def test_sums_and_averages_of_all_elements_are_upstreams_for_integers(
    both: Any, consortium: Any, name: str
) -> None:
    ours, theirs = both
    data = consortium.held(INPUTS[name])
    assert_same(ours.sum(data), theirs.sum(data))
    assert_same(ours.average(data), theirs.average(data))
    assert_same(ours.average(data, weights=[1, 2, 3]), theirs.average(data, weights=[1, 2, 3]))
    if name == "int64 arrays":
        weights = [RNG.integers(1, 9, (3, 4)) for _ in range(3)]
        assert_same(ours.average(data, weights=weights), theirs.average(data, weights=weights))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_sums_and_averages_of_all_elements_are_right_for_floats_too(
    both: Any, consortium: Any, dtype: str
) -> None:
    ours, theirs = both
    inputs = [np.full((40, 10), value, dtype) for value in (300.0, 310.0, 320.0)]
    data = consortium.held(inputs)
    with pytest.raises(AssertionError, match="Support ndarray only"):
        theirs.sum(data)
    # More than float16 could hold: 65,504.
    assert sf.reveal(ours.sum(data)) == pytest.approx(400 * 930)
    assert sf.reveal(ours.average(data)) == pytest.approx(400 * 310)
    weights = [RNG.uniform(0.1, 1, size=(40, 10)) for _ in range(3)]
    expected = np.average(np.stack(inputs), axis=None, weights=np.stack(weights))
    result = sf.reveal(ours.average(data, weights=weights))
    assert result == pytest.approx(expected, abs=0.25 if dtype == "f2" else 1e-3)  # float16 has steps of 0.25


def test_float_types_are_kept_and_integers_become_int64_sums_and_float64_averages(consortium: Any) -> None:
    aggregator = consortium.aggregator(3)
    for kind in ("f2", "f4", "f8"):
        data = consortium.held(arrays(kind))
        assert sf.reveal(aggregator.sum(data, axis=0)).dtype == kind
        assert sf.reveal(aggregator.average(data, axis=0)).dtype == kind
    for kind in ("u1", "i4", "i8"):
        data = consortium.held(arrays(kind))
        assert sf.reveal(aggregator.sum(data, axis=0)).dtype == "i8"
        assert sf.reveal(aggregator.average(data, axis=0)).dtype == "f8"


@pytest.mark.parametrize("weight", [3, 0.5, np.float32(2)])
def test_one_weight_for_all_changes_nothing_as_in_an_average_it_should_not(
    both: Any, consortium: Any, weight: float
) -> None:
    ours, theirs = both
    data = consortium.held(INPUTS["float64 arrays"])
    plain = sf.reveal(ours.average(data, axis=0))
    np.testing.assert_array_equal(sf.reveal(ours.average(data, axis=0, weights=weight)), plain)
    np.testing.assert_allclose(sf.reveal(theirs.average(data, 0, weight)), plain * float(weight), atol=1e-4)


def test_a_model_with_mixed_types_is_taken_and_upstream_refuses_it(both: Any, consortium: Any) -> None:
    ours, theirs = both
    data = consortium.held([[np.full(2, k, "f4"), np.array([k])] for k in range(3)])
    with pytest.raises(AssertionError, match="same dtypes"):
        theirs.average(data, axis=0)
    result = sf.reveal(ours.average(data, axis=0))
    assert result[0].tolist() == [1, 1] and result[1].tolist() == [1]


def test_the_order_of_data_and_weights_is_free(consortium: Any) -> None:
    data = consortium.held([np.array([1.0]), np.array([2.0]), np.array([30.0])])
    aggregator = consortium.aggregator(3)
    straight = sf.reveal(aggregator.average(data, axis=0, weights=[1, 2, 5]))
    mixed = sf.reveal(
        aggregator.average([data[2], data[0], data[1]], axis=0, weights=[5, 1, consortium.held([0, 2])[1]])
    )
    np.testing.assert_array_equal(straight, mixed)
    np.testing.assert_allclose(straight, [155 / 8], atol=1e-5)


@pytest.mark.parametrize("name", ["float32 arrays", "lists of floats", "DataFrames", "int64 arrays"])
def test_masks_of_ones_and_no_masks_give_the_same_bits(consortium: Any, name: str) -> None:
    values = INPUTS[name]
    shapes = [np.shape(x) for x in values[0]] if isinstance(values[0], list) else [np.shape(values[0])]
    masks = consortium.held([[None if "int" in name else np.ones(shape) for shape in shapes]] * 3)
    aggregator, data = consortium.aggregator(3), consortium.held(values)
    plain, masked = (
        sf.reveal(aggregator.average(data, 0, [1, 2, 4], prune_mask)) for prune_mask in (None, masks)
    )
    for mine, other in zip(plain, masked, strict=True) if isinstance(plain, list) else [(plain, masked)]:
        np.testing.assert_array_equal(mine, other)
