"""Cases of sums and averages: what is put in, and how near the result must come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

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
        | st.lists(st.integers(1, 100), min_size=parties, max_size=parties)
        | st.lists(st.floats(0.5, 10), min_size=parties, max_size=parties)
    )
    exact = weights is None or isinstance(weights[0], int)
    ring_bits = draw(st.sampled_from([32, 64]))
    density = draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))

    def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
        if dtype[0] == "f":
            return np.asarray(rng.uniform(-2000, 2000, shape) * rng.choice([1, 1e-3])).astype(dtype)
        # Large enough to show a float64 in the way; without integer weights they are fixed point, too.
        reach = {"i8": 2**48 if exact else 2**17, "i4": 2**31 - 1 if exact else 2**17, "u4": 2**17}[dtype]
        return np.asarray(rng.integers(0 if dtype == "u4" else -reach, reach, shape)).astype(dtype)

    def mask(shape: tuple[int, ...], dtype: str, masked: bool) -> np.ndarray | None:
        return np.asarray(rng.random(shape) < density).astype("u1") if masked and dtype[0] == "f" else None

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
    at_least = case.min_contributors
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
