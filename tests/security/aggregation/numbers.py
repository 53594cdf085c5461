"""Numbers of three parties, and how near upstream's results must come to ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import secretflow as sf

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


def assert_same(ours: Any, theirs: Any, tolerance: float = CUT_OFF) -> None:
    ours, theirs = sf.reveal([ours, theirs])
    assert isinstance(ours, list) == isinstance(theirs, list)
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, list) else [(ours, theirs)]
    for mine, other in pairs:
        assert np.shape(mine) == np.shape(other)
        np.testing.assert_allclose(mine, other, atol=tolerance, rtol=2e-3 if mine.dtype == "f2" else 1e-6)
