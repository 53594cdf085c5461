"""Rounding an update: unbiased, exact in the sum whatever the weights, and within the bits it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secretflow.security.aggregation.secagg.lane_kernels import VECTORISED
from secretflow.security.aggregation.secagg.layout import Layout
from secretflow.security.aggregation.secagg.rounding import (
    UPLOAD_BITS,
    Rounding,
    rounded_update,
    rounding_key,
)
from secretflow.security.aggregation.secagg.support import Support
from secretflow.security.aggregation.secagg.updates import Updates

BITS = st.sampled_from(UPLOAD_BITS)
KEY = bytes(range(32))


@pytest.mark.parametrize("bits", UPLOAD_BITS)
@pytest.mark.parametrize("packed", [True, False])
def test_a_number_costs_less_than_its_bits_and_those_of_a_carry(bits: int, packed: bool) -> None:
    fewest = {8: 106, 4: 5.9, 2: 0.78}[bits]
    for parties in range(2, 256):
        rounding = Rounding.make(bits, parties, packed)
        each = rounding.lanes.bits / rounding.lanes.per_lane
        promised = bits + math.ceil(math.log2(parties))
        assert each < promised if packed else each < 1.26 * promised
        assert rounding.steps / parties >= fewest


@given(BITS, st.lists(st.one_of(st.just(1.0), st.floats(1e-6, 1e6)), min_size=2, max_size=255))
def test_what_all_parties_may_upload_fits_into_a_digit(bits: int, weights: list[float]) -> None:
    rounding, total = Rounding.make(bits, len(weights)), sum(weights)
    limits = [rounding.limit(weight / total) for weight in weights]
    assert sum(limits) <= (rounding.lanes.base - 1) // 2
    assert min(limits) >= 1, "the smallest weight has a step too"


@settings(deadline=None)
@given(BITS, st.integers(2, 40), st.floats(-1, 1), st.floats(0.01, 1))
def test_the_mean_over_all_draws_is_the_number(bits: int, parties: int, value: float, share: float) -> None:
    """Not a sample: a number is rounded once for each of the 2^16 draws."""
    rounding = Rounding.make(bits, parties)
    scale = rounding.scale(1.0, share)
    rest = np.full(2**16, value)
    steps = np.empty(rest.size, np.int16)
    draws = np.arange(2**16).astype("<u2")
    assert not VECTORISED.round_off(steps, rest, draws, scale, rounding.limit(share))
    assert abs(np.mean(steps, dtype=np.float64) - value * scale) <= 2.0**-17 + 1e-9
    assert np.abs(steps - value * scale).max() < 1
    np.testing.assert_allclose(steps / scale + rest, value, atol=1e-12)


@settings(deadline=None)
@given(BITS, st.integers(2, 255), st.floats(-1, 1), st.floats(0.01, 1))
def test_float32_is_off_by_no_more_than_it_cannot_hold(
    bits: int, parties: int, value: float, share: float
) -> None:
    rounding, number = Rounding.make(bits, parties), np.float32(value)
    scale = rounding.scale(1.0, share)
    rest, steps = np.full(2**16, number), np.empty(2**16, np.int16)
    VECTORISED.round_off(steps, rest, np.arange(2**16).astype("<u2"), scale, rounding.limit(share))
    off, unit = 2.0**-17 + 2.0**-22 * abs(number * scale), 1 / scale
    assert abs(np.mean(steps, dtype=np.float64) - number * scale) <= off
    left = steps.astype(np.float64) * unit + rest - number
    assert np.abs(left).max() <= 2.0**-22 * (abs(value) + unit)


@pytest.mark.parametrize("parties", [257, 300, 512, 513, 1000])
@pytest.mark.parametrize("packed", [True, False])
def test_steps_fit_into_int16_and_no_heavy_party_is_clipped_for_it(parties: int, packed: bool) -> None:
    for bits in UPLOAD_BITS:
        rounding = Rounding.make(bits, parties, packed)
        assert rounding.limit(1.0) <= 2**15 - 1
        for share in (0.1, 0.9):
            rest, steps = np.array([-1.0, 1.0]), np.empty(2, np.int16)
            assert rounding.round_off(steps, rest, 1.0, share, KEY) == 0
            np.testing.assert_allclose(steps, rounding.scale(1.0, share) * np.array([-1, 1]), atol=1)


@settings(deadline=None)
@given(BITS, st.integers(2, 20), st.integers(0, 2**32 - 1))
def test_steps_and_what_is_left_are_the_number(bits: int, parties: int, seed: int) -> None:
    rounding = Rounding.make(bits, parties)
    rng = np.random.default_rng(seed)
    numbers, share = rng.normal(size=300), 1 / parties
    rest = numbers.copy()
    steps = np.empty(rest.size, np.int16)
    clipped = rounding.round_off(steps, rest, 1.0, share, KEY)
    np.testing.assert_allclose(steps * (rounding.step(1.0) / share) + rest, numbers, rtol=0, atol=1e-12)
    assert clipped == np.count_nonzero(np.abs(numbers * rounding.scale(1.0, share)) > rounding.limit(share))


def test_a_layer_without_updates_uploads_zeros() -> None:
    rest, steps = np.zeros(10), np.ones(10, np.int16)
    clipped = Rounding.make(8, 3).round_off(steps, rest, 0.0, 1 / 3, KEY)
    assert not steps.any() and not clipped and not rest.any()


def test_parties_rounds_and_layers_draw_by_themselves() -> None:
    keys = {rounding_key(1, *of) for of in (("a", 0, 1), ("b", 0, 1), ("a", 1, 1), ("a", 0, 2))}
    assert len(keys) == 4 and rounding_key(1, "a", 0, 1) in keys
    rounding = Rounding.make(8, 3)
    first, second = np.empty((2, 1000), np.int16)
    for k, steps in enumerate((first, second)):
        rounding.round_off(steps, np.full(1000, 0.01), 1.0, 1 / 3, KEY, k)
    assert (first != second).any()


def test_without_a_seed_nobody_knows_how_a_party_rounds() -> None:
    assert len({rounding_key(None, "a", 0, 1) for _ in range(3)}) == 3


@pytest.mark.parametrize("bits", UPLOAD_BITS)
def test_the_mean_of_rounded_updates_is_the_update(bits: int) -> None:
    update = np.random.default_rng(0).uniform(-1, 1, (20, 30)).astype(np.float32)
    keys = [k.to_bytes(32, "big") for k in range(400)]
    rounded = [rounded_update(update, bits, 5, key, largest=2.5) for key in keys]
    assert rounded[0].shape == update.shape and rounded[0].dtype == update.dtype
    error = np.std(rounded, axis=0).max()
    assert 0 < error < {8: 0.03, 4: 0.6, 2: 1.3}[bits]
    assert np.abs(np.mean(rounded, axis=0) - update).max() < 5 * error / math.sqrt(len(keys))


def test_other_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"upload_bits must be .*got 3"):
        rounded_update(np.zeros(3), 3, 2, KEY)


@pytest.mark.parametrize("bits", UPLOAD_BITS)
def test_a_rounded_update_is_what_a_party_uploads(bits: int) -> None:
    update = np.random.default_rng(1).normal(size=(20, 30)).astype(np.float32)
    rounding, updates = Rounding.make(bits, 4), Updates([update], [0])
    support = Support(Layout.dense([update], True), [None])
    largest = updates.largest([update], support, "alice")
    bounds = [rounding.bound(magnitude) for magnitude in largest]
    uploaded = updates.round_off([update], support, rounding, bounds, 1 / 4, KEY)
    seen = rounded_update(update, bits, 4, KEY)
    np.testing.assert_allclose(seen.ravel(), uploaded.steps * rounding.step(bounds[0]) * 4, rtol=1e-6)
    np.testing.assert_allclose(seen.ravel() + uploaded.rests[0], update.ravel(), atol=1e-6)
