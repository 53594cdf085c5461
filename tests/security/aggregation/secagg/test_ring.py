"""Fixed point: what comes back, how exactly, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretflow.security.aggregation.secagg import kernels
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.pads import Pads
from secretflow.security.aggregation.secagg.ring import Ring, decode, encode_padded

RINGS = st.sampled_from([Ring(32, 20), Ring(32, 1), Ring(32, 29), Ring(64, 40), Ring(64, 20)])
FLOATS = st.sampled_from(["f2", "f4", "f8"])
PIECE = Pads.piece(np.dtype("<u4"))


def pads() -> Pads:
    return Pads([(bytes(32), False)], 1)


def encoded(values: np.ndarray, ring: Ring, scale: float | None = None, **where: Any) -> np.ndarray:
    index = where.get("index")
    out = np.empty(values.size if index is None else index.size, ring.dtype)
    encode_padded(out, values, ring.one if scale is None else scale, ring.capacity, pads(), **where)
    pad = np.zeros_like(out)
    pads().add_to(pad)
    return out - pad


@pytest.fixture(params=["vectorised", "compiled"], autouse=True, scope="module")
def each_kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every property holds for both inner loops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "COMPILED_FROM", 0 if request.param == "compiled" else np.inf)
        yield


@given(RINGS, FLOATS, st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 5, 300]))
def test_a_number_comes_back_within_half_a_unit(ring: Ring, dtype: str, seed: int, size: int) -> None:
    reach = min(ring.capacity / ring.one, 60_000)  # float16 ends at 65,504
    values = np.random.default_rng(seed).uniform(-0.999 * reach, 0.999 * reach, size).astype(dtype)
    back = decode(encoded(values, ring), ring.one)
    float64 = np.abs(values.astype("f8")) * 2.0**-52  # only felt when more than 53 bits are asked for
    assert (np.abs(back - values.astype("f8")) <= 2.0 ** -(ring.fxp_bits + 1) + float64).all()


@given(FLOATS, st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
def test_a_share_of_a_number_is_exact_to_half_a_unit_whatever_its_type(
    dtype: str, seed: int, share: float
) -> None:
    ring = Ring(32, 20)
    values = np.random.default_rng(seed).uniform(-2000, 2000, 100).astype(dtype)
    units = encoded(values, ring, ring.one * share).view("i4")
    # In float32 arithmetic this is off by tens of units.
    assert np.abs(units - values.astype("f8") * (ring.one * share)).max() <= 0.5 + 1e-6


def test_pieces_do_not_show() -> None:
    ring = Ring(32, 20)
    values = np.random.default_rng(0).normal(size=2 * PIECE + 3).astype("f4")
    whole = encoded(values, ring)
    np.testing.assert_array_equal(whole.view("i4"), np.rint(values.astype("f8") * 2**20))
    index = np.flatnonzero(values > 0)
    np.testing.assert_array_equal(encoded(values, ring, index=index), whole[index])


@pytest.mark.parametrize("ring", [Ring(32, 20), Ring(64, 40)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -1e30])
@pytest.mark.parametrize("place", [0, PIECE + 1])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_number_that_does_not_fit_is_refused_and_named(ring: Ring, bad: float, place: int) -> None:
    values = np.zeros(PIECE + 2)
    values[place] = bad
    with pytest.raises(AggregationError, match=re.escape(f"largest magnitude is {abs(bad):g}")):
        encoded(values, ring)


def test_the_end_of_the_range_is_where_it_is_said_to_be() -> None:
    ring = Ring(32, 20)
    most = ring.capacity / ring.one
    assert most == pytest.approx(2048, rel=1e-5)
    for sign in (1, -1):
        np.testing.assert_allclose(decode(encoded(np.array([sign * most]), ring), ring.one), sign * most)
        with pytest.raises(AggregationError):
            encoded(np.array([sign * 2048.0]), ring)


def test_nothing_beside_the_index_is_looked_at() -> None:
    values = np.array([1.0, np.nan, 2.0])
    np.testing.assert_array_equal(
        encoded(values, Ring(32, 20), index=np.array([0, 2])), np.array([1 << 20, 2 << 20])
    )


def test_a_share_of_nothing_still_refuses_nan_and_says_so() -> None:
    with pytest.raises(AggregationError, match="largest magnitude is nan"):
        encode_padded(np.empty(1, "<u4"), np.array([np.nan]), 0.0, 0.0, pads())


@pytest.mark.parametrize(("bits", "fxp_bits"), [(32, 20), (64, 40)])
def test_the_fractional_bits_have_a_default(bits: int, fxp_bits: int) -> None:
    assert Ring.make(bits, None, 2) == Ring(bits, fxp_bits)


@pytest.mark.parametrize("bits", [0, 16, 31, 128, None, "32"])
def test_other_rings_are_refused(bits: Any) -> None:
    with pytest.raises(ValueError, match="ring_bits"):
        Ring.make(bits, None, 2)


@pytest.mark.parametrize("fxp_bits", [0, -1, 30, 2.5, True, "20"])
def test_fractional_bits_out_of_range_are_refused(fxp_bits: Any) -> None:
    with pytest.raises(ValueError, match="fxp_bits"):
        Ring.make(32, fxp_bits, 2)


@pytest.mark.parametrize(("parties", "largest"), [(2, 29), (3, 28), (4, 28), (5, 27), (8, 27), (255, 22)])
def test_more_parties_leave_fewer_fractional_bits(parties: int, largest: int) -> None:
    ring = Ring.make(32, largest, parties)
    assert ring.capacity / parties / ring.one >= 1  # every party can add a number up to 1
    with pytest.raises(ValueError, match=f"from 1 to {largest} in a ring of 32 bits with {parties} parties"):
        Ring.make(32, largest + 1, parties)
