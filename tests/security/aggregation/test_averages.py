"""Sums and averages are right, within the bound that the docstring states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import secretflow as sf

from .averages import FXP_BITS, Case, bits, cases, check, property_test, rounding

MIN_SHARE = 1e-9  # everybody counts, so what travels follows from the masks alone


@property_test
@given(case=cases())
def test_the_server_gets_the_average_over_those_who_keep_an_element(consortium: Any, case: Case) -> None:
    aggregator = consortium.aggregator(
        case.parties,
        ring_bits=case.ring_bits,
        min_contributors=case.min_contributors,
        min_share=MIN_SHARE,
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
        min_share=MIN_SHARE,
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
    aggregator = consortium.aggregator(parties, ring_bits=64, min_contributors=1)
    result = sf.reveal(aggregator.average(consortium.held(data), axis=0, weights=weights))
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


def test_of_two_parties_nobody_gets_what_only_one_of_them_keeps_unless_all_have_agreed_to_it(
    consortium: Any,
) -> None:
    masks = consortium.held([[np.array([1, 1, 0])], [np.array([1, 0, 0])]])
    data = consortium.held([[np.array([5.0, 5.0, 5.0])], [np.array([7.0, 7.0, 7.0])]])
    aggregator = consortium.aggregator(2)
    at_parties = list(sf.reveal(aggregator.average_at_parties(data, prune_mask=masks)).values())
    assert [result[0].tolist() for result in at_parties] == [[6, 5, 0], [6, 0, 0]]
    one_number_and_the_masks = 4 + 4
    assert list(sf.reveal(aggregator.payload_bytes()).values()) == [one_number_and_the_masks] * 2
    assert sf.reveal(aggregator.average(data, 0, prune_mask=masks))[0].tolist() == [6, 0, 0]
    agreed = consortium.aggregator(2, min_contributors=1)
    assert sf.reveal(agreed.average(data, 0, prune_mask=masks))[0].tolist() == [6, 5, 0]


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
