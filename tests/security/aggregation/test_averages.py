"""Sums and averages are right: within the bound that the docstring states, and the same bits every time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import secretflow as sf

# The fixture holds no state between examples: every example makes its own aggregator.
property_test = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FXP_BITS = {32: 20, 64: 40}


@dataclass
class Case:
    """One call: what each party brings, and how it is averaged."""

    ring_bits: int
    min_contributors: int
    data: list[list[np.ndarray]]
    masks: list[list[np.ndarray | None]]
    weights: list[Any] | None

    @property
    def parties(self) -> int:
        return len(self.data)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    parties = draw(st.integers(2, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = st.lists(st.integers(0, 5), max_size=3).map(tuple)
    kind = st.sampled_from(["f2", "f4", "f8", "i4", "i8", "u4"])
    layout = draw(st.lists(st.tuples(shape, kind, st.booleans()), min_size=1, max_size=4))
    weights = draw(
        st.none()
        | st.lists(st.integers(1, 1000), min_size=parties, max_size=parties)
        | st.lists(st.floats(0.01, 10), min_size=parties, max_size=parties)
    )
    exact = weights is None or isinstance(weights[0], int)
    ring_bits = draw(st.sampled_from([32, 64]))
    living_rate = draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))

    def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
        if dtype[0] == "f":
            return np.asarray(rng.uniform(-2000, 2000, shape) * rng.choice([1, 1e-3])).astype(dtype)
        # Large enough to show a float64 in the way; without integer weights they are fixed point, too.
        reach = {"i8": 2**48 if exact else 2**17, "i4": 2**31 - 1 if exact else 2**17, "u4": 2**17}[dtype]
        return np.asarray(rng.integers(0 if dtype == "u4" else -reach, reach, shape)).astype(dtype)

    def mask(shape: tuple[int, ...], dtype: str, masked: bool) -> np.ndarray | None:
        return (
            np.asarray(rng.random(shape) < living_rate).astype("u1") if masked and dtype[0] == "f" else None
        )

    return Case(
        ring_bits,
        draw(st.integers(1, parties)),
        [[numbers(shape, dtype) for shape, dtype, _ in layout] for _ in range(parties)],
        [[mask(*entry) for entry in layout] for _ in range(parties)],
        weights,
    )


def rounding(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Half a unit in the last place of a float type, plus what float64 rounds off on the way."""
    info = np.finfo(dtype)
    return np.abs(values) * info.eps / 2 + info.smallest_subnormal + 2000 * 16 * 2.0**-53


def check(case: Case, result: list[np.ndarray], party: int | None = None) -> None:
    """Compares with the plain average in the widest floats; at a party, with its private values."""
    weights = np.array(case.weights or [1] * case.parties, np.longdouble)
    shares = weights / weights.sum()
    at_least = 1 if party is None and case.parties == 2 else case.min_contributors
    assert isinstance(result, list) and len(result) == len(case.data[0])
    for k, got in enumerate(result):
        inputs = np.stack([arrays[k] for arrays in case.data])
        # Divided last: of large numbers that cancel, rounded shares would leave more than what is allowed.
        exact = np.tensordot(weights, inputs.astype(np.longdouble), 1) / weights.sum()
        assert np.shape(got) == inputs.shape[1:]
        step = case.parties * 2.0 ** -(FXP_BITS[case.ring_bits] + 1)
        if inputs.dtype.kind != "f":
            assert got.dtype == np.float64
            # Integer weights make integers exact; then only float64 itself rounds.
            bound = np.abs(exact) * 2.0**-50 + (0 if weights_are_integers(case) else step + 2.0**-30)
            assert (np.abs(got - exact) <= bound).all()
            continue
        assert got.dtype == inputs.dtype
        masks = [masks[k] for masks in case.masks]
        if any(mask is None for mask in masks):
            assert (np.abs(got.astype(np.longdouble) - exact) <= step + rounding(exact, got.dtype)).all()
            continue
        kept = np.stack([mask for mask in masks if mask is not None]).astype(bool)
        contributors = kept.sum(axis=0)
        travels = contributors >= at_least
        held = np.tensordot(shares, kept.astype(np.longdouble), 1)
        average = np.tensordot(shares, inputs.astype(np.longdouble) * kept, 1) / np.where(held > 0, held, 1)
        partial = contributors < case.parties
        slack = np.where(partial, np.abs(average) * case.parties * 2.0 ** -(case.ring_bits - 1), 0)
        bound = (step + slack) / np.where(travels & partial, held, 1)
        bound = bound + rounding(average, got.dtype) / np.where(travels & partial, held, 1)
        error = np.abs(got.astype(np.longdouble) - average)
        assert (error <= bound)[travels].all()
        if party is None:
            assert (got[~travels] == 0).all()
        else:
            private = ~travels & kept[party]
            np.testing.assert_array_equal(got[private], inputs[party][private])
            assert (got[~travels & ~kept[party]] == 0).all()


def weights_are_integers(case: Case) -> bool:
    return case.weights is None or isinstance(case.weights[0], int)


def bits(arrays: list[np.ndarray]) -> list[bytes]:
    return [np.asarray(array).tobytes() for array in arrays]


@property_test
@given(case=cases())
def test_the_server_gets_the_average_over_those_who_keep_an_element(consortium: Any, case: Case) -> None:
    aggregator = consortium.aggregator(
        case.parties, ring_bits=case.ring_bits, min_contributors=case.min_contributors
    )
    data, masks = consortium.held(case.data), consortium.held(case.masks)
    first = sf.reveal(aggregator.average(data, axis=0, weights=case.weights, prune_mask=masks))
    check(case, first)
    again = sf.reveal(aggregator.average(data, axis=0, weights=case.weights, prune_mask=masks))
    assert bits(again) == bits(first)


@property_test
@given(case=cases(), server_blind=st.booleans())
def test_every_party_gets_the_average_and_its_private_values(
    consortium: Any, case: Case, server_blind: bool
) -> None:
    aggregator = consortium.aggregator(
        case.parties,
        ring_bits=case.ring_bits,
        min_contributors=case.min_contributors,
        server_blind=server_blind,
    )
    data, masks = consortium.held(case.data), consortium.held(case.masks)
    first = sf.reveal(aggregator.average_at_parties(data, weights=case.weights, prune_mask=masks))
    for position, party in enumerate(aggregator.participants):
        check(case, first[party], position)
    # From now on the denominators come from the cache instead of with the call.
    again = sf.reveal(aggregator.average_at_parties(data, weights=case.weights, prune_mask=masks))
    assert all(bits(first[party]) == bits(again[party]) for party in first)


@property_test
@given(case=cases())
def test_sums_are_right(consortium: Any, case: Case) -> None:
    aggregator = consortium.aggregator(case.parties, ring_bits=case.ring_bits)
    # Of numbers whose sum fits into the ring, and into float16.
    data = [
        [np.asarray(a / a.dtype.type(8)) if a.dtype.kind == "f" else a for a in arrays]
        for arrays in case.data
    ]
    result = sf.reveal(aggregator.sum(consortium.held(data), axis=0))
    for k, got in enumerate(result):
        inputs = np.stack([arrays[k] for arrays in data])
        if inputs.dtype.kind != "f":
            assert got.dtype == np.int64
            np.testing.assert_array_equal(got, inputs.astype(object).sum(axis=0))
            continue
        exact = inputs.astype(np.longdouble).sum(axis=0)
        step = case.parties * 2.0 ** -(FXP_BITS[case.ring_bits] + 1)
        assert got.dtype == inputs.dtype
        assert (np.abs(got - exact) <= step + rounding(exact, got.dtype)).all()


@property_test
@given(
    seed=st.integers(0, 2**32 - 1),
    parties=st.integers(2, 8),
    integer=st.booleans(),
    dtype=st.sampled_from(["f4", "f8", "i4"]),
)
def test_weights_may_be_arrays(consortium: Any, seed: int, parties: int, integer: bool, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    data = [np.asarray(rng.normal(size=(3, 4)) * 100).astype(dtype) for _ in range(parties)]
    shape = [(3, 4), (4,), (3, 1), ()][int(rng.integers(4))]
    weights = [np.asarray(rng.integers(0, 9, shape)) for _ in range(parties)]
    weights[0] = weights[0] + 1  # so that they never add up to 0
    if not integer:
        weights = [weight * 0.37 for weight in weights]
    result = sf.reveal(
        consortium.aggregator(parties, ring_bits=64).average(consortium.held(data), axis=0, weights=weights)
    )
    spread = np.stack([np.broadcast_to(weight, (3, 4)) for weight in weights])
    np.testing.assert_allclose(result, np.average(data, axis=0, weights=spread), rtol=1e-6, atol=1e-9)


def test_everything_the_example_in_the_docstring_says(consortium: Any) -> None:
    data = consortium.held([np.array([1.0, 2.0]), np.array([3.0, 4.0])])
    result = sf.reveal(consortium.aggregator(2).average(data, axis=0, weights=[1, 3]))
    np.testing.assert_array_equal(result, [2.5, 3.5])


@pytest.mark.parametrize("min_contributors", [1, 2, 3])
def test_an_element_of_too_few_contributors_is_zero_at_the_server(
    consortium: Any, min_contributors: int
) -> None:
    # Kept by 3, 2, 1 and no parties.
    masks = [np.array([1, 1, 1, 0]), np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0])]
    data = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.0, 6.0, 9.0, 9.0]), np.array([7.0, 9.0, 9.0, 9.0])]
    aggregator = consortium.aggregator(3, min_contributors=min_contributors)
    result = sf.reveal(
        aggregator.average(
            consortium.held([[x] for x in data]), 0, prune_mask=consortium.held([[m] for m in masks])
        )
    )
    enough = np.array([3, 2, 1, 0]) >= min_contributors
    expected = np.where(enough, [4.0, 4.0, 3.0, 0.0], 0.0)
    np.testing.assert_allclose(result[0], expected, atol=1e-5)


def test_of_two_parties_the_server_gets_the_average_over_who_keeps_an_element_only_if_asked(
    consortium: Any,
) -> None:
    masks = consortium.held([[np.array([1, 1, 0])], [np.array([1, 0, 0])]])
    data = consortium.held([[np.array([5.0, 5.0, 5.0])], [np.array([7.0, 7.0, 7.0])]])
    aggregator = consortium.aggregator(2)
    at_parties = list(sf.reveal(aggregator.average_at_parties(data, prune_mask=masks)).values())
    assert [result[0].tolist() for result in at_parties] == [[6, 5, 0], [6, 0, 0]]
    one_number_and_the_masks = 4 + 3
    assert list(sf.reveal(aggregator.payload_bytes()).values()) == [one_number_and_the_masks] * 2
    assert sf.reveal(aggregator.average(data, 0, prune_mask=masks))[0].tolist() == [6, 5, 0]


@pytest.mark.parametrize("weights", [None, [1, 2, 3], [0.5, 0.2, 0.7]])
def test_a_model_with_batch_normalisation_averages_statistics_and_counters(
    consortium: Any, weights: list[float] | None
) -> None:
    rng = np.random.default_rng(3)
    models = [
        [
            rng.normal(size=(4, 1, 3, 3)).astype("f4"),  # convolution
            rng.normal(size=4).astype("f4"),  # running mean
            rng.uniform(size=4).astype("f4"),  # running variance
            np.array(10 * k + 7),  # batches seen, an int64 without dimensions
        ]
        for k in range(3)
    ]
    masks = consortium.held([[np.ones((4, 1, 3, 3))]] * 3)
    result = sf.reveal(consortium.aggregator(3).average_at_parties(consortium.held(models), weights, masks))
    for averaged in result.values():
        for k in range(4):
            expected = np.average([model[k] for model in models], axis=0, weights=weights)
            np.testing.assert_allclose(averaged[k], expected, atol=3 * 2.0**-21 + 1e-7)
    if weights is None:
        assert averaged[3] == 17


def test_other_weights_and_other_masks_bring_other_denominators(consortium: Any) -> None:
    data = [[np.array([8.0, 8.0])], [np.array([4.0, 4.0])], [np.array([0.0, 1.0])]]
    held = consortium.held(data)
    first, second = (
        consortium.held([[np.array(mask)] for mask in masks])
        for masks in ([[1, 1], [1, 0], [0, 1]], [[0, 1], [1, 1], [1, 1]])
    )
    aggregator = consortium.aggregator(3)
    rounds = [
        (first, [1, 1, 1], [6.0, 4.5]),
        (first, [1, 3, 1], [5.0, 4.5]),
        (first, [1, 1, 1], [6.0, 4.5]),
        (second, [1, 1, 1], [2.0, 13 / 3]),
        (first, [1, 1, 1], [6.0, 4.5]),
        (first, None, [6.0, 4.5]),
        (first, [1, 1, 6], [6.0, 2.0]),
    ]
    for masks, weights, expected in rounds:
        for result in sf.reveal(aggregator.average_at_parties(held, weights, masks)).values():
            np.testing.assert_allclose(result[0], expected, atol=2e-5)
        result = sf.reveal(aggregator.average(held, 0, weights, masks))
        np.testing.assert_allclose(result[0], expected, atol=2e-5)


def test_denominators_travel_once_for_the_same_masks_and_weights(consortium: Any) -> None:
    masks = consortium.held([[np.array([1, 1, 1, 0])], [np.array([1, 1, 0, 0])], [np.array([1, 0, 0, 0])]])
    data = consortium.held([[np.ones(4)]] * 3)
    aggregator = consortium.aggregator(3)
    uploaded = []
    for _ in range(3):
        aggregator.average_at_parties(data, prune_mask=masks)
        uploaded.append(sf.reveal(aggregator.payload_bytes())[consortium.parties[0]])
    # A mask of 4 bytes; two living numbers and one denominator of 4 bytes each; then the numbers alone.
    assert uploaded == [4 + 12, 16 + 8, 24 + 8]


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


@pytest.mark.parametrize("bad", [np.nan, np.inf, -2048.0])
def test_a_number_that_does_not_fit_names_party_array_and_magnitude(consortium: Any, bad: float) -> None:
    data = consortium.held([[np.zeros(2), np.zeros(3)], [np.zeros(2), np.array([0, bad, 1])]])
    for call in (
        lambda a: a.average(data, axis=0),
        lambda a: a.sum(data, axis=0),
        lambda a: a.average(data, axis=0, weights=[np.array(1.0), np.ones(1)]),
    ):
        with pytest.raises(
            ValueError, match=r"data\[1\] of bob does not fit into 32 bits with 20 .*magnitude is"
        ):
            call(consortium.aggregator(2))


@pytest.mark.parametrize("dtype", ["f8", "i8"])
@pytest.mark.parametrize("weights", [[1, 2], [0.5, 1.5]])
def test_an_array_of_weights_may_not_be_larger_than_the_data(
    consortium: Any, dtype: str, weights: list[float]
) -> None:
    data = consortium.held([np.ones(1, dtype), np.ones(1, dtype)])
    for shape in ((3,), (2, 2)):
        with pytest.raises(AssertionError, match="weights: a weight of shape"):
            consortium.aggregator(2).average(data, 0, weights=[np.full(shape, weight) for weight in weights])
