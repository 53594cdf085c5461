"""A drop-in for upstream's SecureAggregator: the same calls, the same numbers, the same mistakes refused.

Where ours differs on purpose:

* upstream gives float64 whatever came in; ours keeps a float dtype, as upstream's PlainAggregator does;
* upstream cannot add up the elements of floats (``axis=None`` fails inside its own decoding); ours can;
* upstream multiplies by one number given for all weights and never divides by it again; a weight that is the
  same for all changes no average here;
* upstream wants one dtype for all arrays of a list; ours takes a model with integer counters among floats;
* upstream cuts fixed point off at 2^-18, ours rounds at 2^-20.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import secretflow as sf
from secretflow.security.aggregation import SecureAggregator, SecurePruneAggregator

RNG = np.random.default_rng(0)
CUT_OFF = 2 * 3 * 2.0**-18  # of three parties at upstream, doubled for division by small weights


def arrays(kind: str) -> list[np.ndarray]:
    if kind[0] == "f":
        return [RNG.normal(size=(3, 4)).astype(kind) for _ in range(3)]
    return [RNG.integers(0, 100, (3, 4)).astype(kind) for _ in range(3)]


INPUTS: dict[str, list[Any]] = {
    "float32 arrays": arrays("f4"),
    "float64 arrays": arrays("f8"),
    "float16 arrays": arrays("f2"),
    "int32 arrays": arrays("i4"),
    "int64 arrays": arrays("i8"),
    "uint8 arrays": arrays("u1"),
    "lists of floats": [[x, x[0]] for x in arrays("f4")],
    "lists of integers": [[x, x[0]] for x in arrays("i8")],
    "DataFrames": [pd.DataFrame(x) for x in arrays("f8")],
    "integer DataFrames": [pd.DataFrame(x) for x in arrays("i8")],
    "Series": [pd.Series(x[0]) for x in arrays("f8")],
    "lists of DataFrames": [[pd.DataFrame(x), pd.Series(x[0])] for x in arrays("f8")],
}
FLOATS = [name for name, values in INPUTS.items() if "nteger" not in name and "int" not in name]
INTEGERS = [name for name in INPUTS if name not in FLOATS]


@pytest.fixture(scope="module")
def upstreams() -> dict[str, SecureAggregator]:
    """Upstream's aggregators, made once: its key agreement takes a second."""
    return {}


@pytest.fixture
def both(
    consortium: Any, upstreams: dict[str, SecureAggregator], request: pytest.FixtureRequest
) -> tuple[SecurePruneAggregator, SecureAggregator]:
    """Our aggregator and upstream's, of the same three parties.

    After an error the generators of upstream's parties are out of step and its sums are noise, so it has one
    aggregator for mistakes and one for numbers.
    """
    use = "mistakes" if "refuse" in request.node.name or "mistake" in request.node.name else "numbers"
    if use not in upstreams:
        upstreams[use] = SecureAggregator(consortium.server, consortium.parties[:3])
    return consortium.aggregator(3), upstreams[use]


def assert_same(ours: Any, theirs: Any, tolerance: float = CUT_OFF) -> None:
    ours, theirs = sf.reveal([ours, theirs])
    assert isinstance(ours, list) == isinstance(theirs, list)
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, list) else [(ours, theirs)]
    for mine, other in pairs:
        assert np.shape(mine) == np.shape(other)
        np.testing.assert_allclose(mine, other, atol=tolerance, rtol=2e-3 if mine.dtype == "f2" else 1e-6)


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
    weights = [RNG.uniform(size=(40, 10)) for _ in range(3)]
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


Mistake = Callable[[Any, Any], Any]
MISTAKES: dict[str, tuple[Mistake, str]] = {
    "no data": (lambda a, c: a.sum([]), "The data should not be None or empty"),
    "no data for the average": (lambda a, c: a.average(None), "The data should not be None or empty"),
    "a missing party": (
        lambda a, c: a.sum(c.held([np.ones(1)] * 2)),
        "Length of the data not equals devices: 2 vs 3",
    ),
    "a party too many": (
        lambda a, c: a.average(c.held([np.ones(1)] * 4)),
        "Length of the data not equals devices: 4 vs 3",
    ),
    "a foreign party": (
        lambda a, c: a.sum(c.held([np.ones(1)] * 4)[1:]),
        "Devices of the data must be corresponding with this aggregator",
    ),
    "a party twice": (
        lambda a, c: a.sum([*c.held([np.ones(1)] * 2), *c.held([np.ones(1)])]),
        "Devices of the data must be corresponding with this aggregator",
    ),
    "text": (lambda a, c: a.sum(c.held(["a"] * 3)), "Accept ndarray or dataframe/series only but got"),
    "numbers without an array": (
        lambda a, c: a.sum(c.held([1.0] * 3)),
        "Accept ndarray or dataframe/series only but got",
    ),
    "an array of text": (
        lambda a, c: a.sum(c.held([np.array(["a"])] * 3)),
        "Data type are neither integer nor float",
    ),
    "too few weights": (
        lambda a, c: a.average(c.held([np.ones(1)] * 3), weights=[1, 2]),
        "Length of the weights not equals data: 2 vs 3",
    ),
    "a weight on another device": (
        lambda a, c: a.average(c.held([np.ones(1)] * 3), weights=c.held([1, 2, 3])[::-1]),
        "Device of weight is not same with the corresponding data",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_the_same_error_as_upstreams(both: Any, consortium: Any, name: str) -> None:
    act, message = MISTAKES[name]
    for aggregator in both:
        with pytest.raises(AssertionError, match=message):
            act(aggregator, consortium)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([np.ones(2), np.ones(2), np.ones(2, "f4")], "differ in layout.*shapes, types"),
        ([np.ones(2), np.ones(2), np.ones(2, "i8")], "differ in layout.*shapes, types"),
        ([np.ones(2), np.ones(2), np.ones(3)], "differ in layout.*shapes, types"),
        ([np.ones(2), np.ones(2), [np.ones(2)]], "differ in layout.*shapes, types"),
        ([[np.ones(2)] * 2, [np.ones(2)] * 2, [np.ones(2)]], "differ in layout.*shapes, types"),
    ],
)
def test_mixed_types_shapes_and_lists_are_refused(
    both: Any, consortium: Any, data: Any, message: str
) -> None:
    ours, theirs = both
    with pytest.raises(AssertionError, match=message):
        ours.average(consortium.held(data), axis=0)
    with pytest.raises((AssertionError, ValueError, TypeError, IndexError)):  # upstream: whatever numpy says
        sf.reveal(theirs.average(consortium.held(data), axis=0))


def test_a_device_twice_among_the_participants_is_refused_as_upstream_does(consortium: Any) -> None:
    alice, bob = consortium.parties[:2]
    for aggregator in (SecurePruneAggregator, SecureAggregator):
        with pytest.raises(AssertionError, match="Should not have duplicated devices"):
            aggregator(consortium.server, [alice, bob, alice])


def test_settings_out_of_range_are_refused(consortium: Any) -> None:
    for parties, options, message in (
        (1, {}, "from 2 to 255 parties"),
        (0, {}, "from 2 to 255 parties"),
        (3, {"min_contributors": 0}, "min_contributors must be an integer from 1 to 3, got 0"),
        (3, {"min_contributors": 4}, "min_contributors must be an integer from 1 to 3, got 4"),
        (3, {"ring_bits": 16}, "ring_bits must be one of 32, 64, got 16"),
        (3, {"fxp_bits": 31}, "fxp_bits must be an integer from 1 to 28 .*, got 31"),
    ):
        with pytest.raises(ValueError, match=message):
            consortium.aggregator(parties, **options)


def test_another_axis_is_refused(consortium: Any) -> None:
    data = consortium.held([np.ones((2, 2))] * 3)
    for act in (consortium.aggregator(3).sum, consortium.aggregator(3).average):
        with pytest.raises(AssertionError, match="axis must be 0 or None, got 1"):
            act(data, axis=1)


def test_in_blind_mode_the_server_has_no_result_to_give(consortium: Any) -> None:
    aggregator = consortium.aggregator(3, server_blind=True)
    data = consortium.held([np.ones(2)] * 3)
    for act in (aggregator.sum, aggregator.average):
        with pytest.raises(AssertionError, match="average_at_parties"):
            act(data, axis=0)
    for result in sf.reveal(aggregator.average_at_parties(data)).values():
        np.testing.assert_allclose(result, [1, 1], atol=3 * 2.0**-21)


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


def test_a_blind_server_cannot_be_a_participant(devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="is a participant and has the key"):
        SecurePruneAggregator(devices.alice, [devices.alice, devices.bob], server_blind=True)
