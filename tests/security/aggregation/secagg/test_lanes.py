"""Integers that share lanes: a digit of a sum is the sum of the digits, and both loops give the same bits."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from secretflow.security.aggregation.secagg import lane_kernels, lanes
from secretflow.security.aggregation.secagg.lane_kernels import VECTORISED, LaneKernels, compiled
from secretflow.security.aggregation.secagg.lanes import Lanes, pack, unpack
from secretflow.security.aggregation.secagg.pads import Pads


def largest_base(per_lane: int, bits: int) -> int:
    """The largest base, at most 2**15, in which so many digits fit into so many bits."""
    return bisect_right(range(2**15 + 1), 2**bits, key=lambda base: base**per_lane) - 1


@settings(deadline=None)
@given(
    st.integers(1, 20), st.integers(20, 64), st.booleans(), st.integers(2, 5), st.integers(0, 3000), st.data()
)
def test_digits_of_a_sum_are_the_sums_of_the_digits(
    per_lane: int, bits: int, signed: bool, parties: int, numbers: int, data: st.DataObject
) -> None:
    base = largest_base(per_lane, bits)
    assume(base > 2 or not signed)
    base -= signed and base % 2 == 0
    most = (base - 1) // 2 // parties if signed else (base - 1) // parties
    shared = Lanes(base, per_lane, bits, signed)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    digits = [rng.integers(-most * signed, most + 1, numbers).astype(np.int16) for _ in range(parties)]
    total = np.zeros(shared.size_of(numbers), "<u8")
    for own in digits:
        total += shared.join(own)
    travelled = unpack(pack(total, bits), bits)[: total.size]
    np.testing.assert_array_equal(shared.split(travelled, numbers), np.sum(digits, axis=0))


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_packed_lanes_take_their_bits_and_no_more(bits: int, size: int, seed: int) -> None:
    own = np.random.default_rng(seed).integers(0, 2**64, size, np.uint64)
    words = pack(own, bits)
    assert words.size == -(-size * bits // 64)
    found = unpack(words, bits)
    np.testing.assert_array_equal(found[:size], own & np.uint64(2**bits - 1))
    assert not found[size:].any()


@pytest.mark.parametrize("numbers", [0, 7, 1 << 16, (1 << 19) + 1])
@pytest.mark.parametrize("bits", [59, 64])
def test_pads_go_onto_lanes_that_are_packed_then(bits: int, numbers: int) -> None:
    shared = Lanes(911, 6, bits, signed=True)
    digits = np.random.default_rng(0).integers(-455, 456, numbers).astype(np.int16)
    lanes = shared.join(digits)
    padded = np.full(shared.words_of(numbers), 2**64 - 1, "<u8")
    shared.write_padded(padded, digits, Pads([(bytes(32), True)], 1))
    Pads([(bytes(32), True)], 1).add_to(lanes)
    np.testing.assert_array_equal(padded, pack(lanes, bits))


@pytest.fixture(scope="module")
def both() -> tuple[LaneKernels, LaneKernels]:
    return VECTORISED, compiled()


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(0, 5000), st.integers(0, 2**32 - 1))
def test_both_loops_put_the_same_bits_into_lanes(
    both: tuple[LaneKernels, LaneKernels], bits: int, size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    per_lane = int(rng.integers(1, 12))
    powers = np.array([3**k for k in range(per_lane)], "<u8")
    digits = rng.integers(-9, 9, size).astype(np.int16)
    own = [np.empty(-(-size // per_lane), "<u8") for _ in both]
    words = [np.zeros(-(-own[0].size * bits // 64), "<u8") for _ in both]
    lanes_again = [np.empty(own[0].size, "<u8") for _ in both]
    digits_again = [np.empty(size, np.int32) for _ in both]
    for k, kernels in enumerate(both):
        kernels.join(own[k], digits, powers)
        kernels.pack(words[k], own[k], bits)
        kernels.unpack(lanes_again[k], words[k], bits)
        kernels.split(digits_again[k], own[k], powers, np.uint64(5), np.uint64(2**50 - 1), 1)
    for found in (own, words, lanes_again, digits_again):
        np.testing.assert_array_equal(*found)


@settings(deadline=None)
@given(
    st.sampled_from(["f4", "f8"]),
    st.integers(0, 300),
    st.one_of(st.just(0.0), st.floats(1e-6, 1e4)),
    st.integers(0, 2**32 - 1),
)
def test_both_loops_round_to_the_same_bits(
    both: tuple[LaneKernels, LaneKernels], dtype: str, size: int, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values, reference, rest = rng.normal(size=(3, size)).astype(dtype)
    random = rng.integers(0, 2**16, size).astype("<u2")
    outs = [np.empty(size, dtype) for _ in both]
    steps = [np.empty(size, np.int16) for _ in both]
    largest = [k.differ(out, values, reference, rest) for k, out in zip(both, outs, strict=True)]
    clipped = [
        k.round_off(own, out, random, scale, 100) for k, own, out in zip(both, steps, outs, strict=True)
    ]
    assert largest[0] == largest[1] and clipped[0] == clipped[1]
    np.testing.assert_array_equal(*steps)
    np.testing.assert_array_equal(*outs)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_has_no_magnitude(
    both: tuple[LaneKernels, LaneKernels], number: float
) -> None:
    values, zeros = np.array([3.0, number, -1.0]), np.zeros(3)
    for kernels in both:
        assert kernels.differ(np.empty(3), values, zeros, zeros) == np.inf


def test_large_vectors_are_worked_on_by_compiled_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []

    def watched(size: int) -> LaneKernels:
        chosen.append(lane_kernels.lane_kernels_for(size) is compiled())
        return VECTORISED

    monkeypatch.setattr(lanes, "lane_kernels_for", watched)
    Lanes(3, 20, 64).join(np.zeros(1 << 19, np.int16))
    pack(np.zeros(1000, "<u8"), 5)
    assert chosen == [True, False]
