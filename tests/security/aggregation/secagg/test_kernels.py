"""The two inner loops of encoding: the same bits, and the compiled one only where it pays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secretflow.security.aggregation.secagg import kernels
from secretflow.security.aggregation.secagg import ring as ring_module
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from tests.security.aggregation.stepwise import Stepwise as Client


@settings(deadline=None)  # the first example of each type compiles
@given(
    st.sampled_from([Ring(32, 20), Ring(32, 1), Ring(64, 40)]),
    st.sampled_from(["f4", "f8"]),
    st.integers(0, 2**32 - 1),
    st.floats(0.01, 1.0),
    st.sampled_from([None, "i8", "u4"]),
    st.sampled_from([0, 200, 10_000]),  # the compiled one fetches piece by piece
)
def test_both_give_the_same_bits(
    ring: Ring, dtype: str, seed: int, share: float, taken: str | None, numbers: int
) -> None:
    rng = np.random.default_rng(seed)
    reach = 0.99 * ring.capacity / ring.one
    values = np.append(rng.uniform(-reach, reach, numbers), 1.0).astype(dtype)
    index = np.flatnonzero(rng.random(values.size) < 0.5).astype(taken) if taken else None
    if index is not None and not index.size:
        return
    size = values.size if index is None else index.size
    signed = np.dtype(ring.dtype.str.replace("u", "i"))
    info = np.iinfo(signed)
    pad = rng.integers(info.min, info.max, size, signed, endpoint=True)
    results = [np.empty(size, signed) for _ in range(2)]
    for kernel, out in zip((kernels._vectorised, kernels._compiled()), results, strict=True):
        assert kernel(out, pad, values, index, ring.one * share, ring.capacity)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("position", [0, 4_000, 9_999])
@pytest.mark.parametrize("number", [np.nan, np.inf, -2.0])
def test_a_number_that_does_not_fit_is_found_in_any_piece(position: int, number: float) -> None:
    values = np.zeros(20_000, "f4")
    index = np.arange(1, 20_000, 2, dtype=np.uint32)
    values[index[position]] = number
    out = np.empty(index.size, np.int32)
    for kernel in (kernels._vectorised, kernels._compiled()):
        assert not kernel(out, np.zeros_like(out), values, index, 1.0, 1.5)


@settings(deadline=None)
@given(
    st.sampled_from(["i4", "i8", "f8"]),
    st.sampled_from(["f4", "f8"]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 40),
)
def test_both_put_the_same_bits_into_the_same_places(source: str, target: str, seed: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    index = np.flatnonzero(rng.random(200) < 0.3)
    numbers = rng.integers(-(2**31), 2**31, index.size).astype(source)
    arrays = [np.full(200, 7, target) for _ in range(2)]
    for scatter, array in zip(
        (kernels._vectorised_scatter, kernels._compiled_scatter()), arrays, strict=True
    ):
        scatter(array, index, numbers, 2.0**bits)
    np.testing.assert_array_equal(*arrays)
    np.testing.assert_array_equal(np.delete(arrays[0], index), 7)
    np.testing.assert_allclose(arrays[0][index], numbers / 2.0**bits, rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "dtype", "compiled"),
    [
        (1 << 19, "<f4", True),
        (1 << 19, "<f8", True),
        ((1 << 19) - 1, "<f4", False),
        (1 << 19, "<f2", False),
        (1 << 19, ">f4", False),
    ],
)
def test_only_large_vectors_of_usual_floats_are_compiled_for(size: int, dtype: str, compiled: bool) -> None:
    expected = kernels._compiled() if compiled else kernels._vectorised
    assert kernels.kernel_for(size, np.dtype(dtype)) is expected
    expected = kernels._compiled_scatter() if compiled else kernels._vectorised_scatter
    assert kernels.scatter_for(size, np.dtype(dtype)) is expected


def test_a_model_of_many_arrays_is_encoded_with_the_compiled_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []

    def watched(size: int, dtype: np.dtype) -> kernels.Kernel:
        chosen.append(kernels.kernel_for(size, dtype))
        return chosen[-1]

    monkeypatch.setattr(ring_module, "kernel_for", watched)
    rules = Rules(Ring(32, 20), 2)
    client, peer = (Client(name, ["alice", "bob"], rules) for name in ("alice", "bob"))
    agree_all([client.keys, peer.keys])
    client.average(1, [np.ones(kernels.COMPILED_FROM // 4, "f4")] * 4)
    assert chosen == [kernels._compiled()] * 4
