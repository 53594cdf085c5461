"""The benchmark of the small net measures what it says."""

from __future__ import annotations

from benchmarks.small_export import measure


def test_the_small_net_is_smaller_and_computes_the_same() -> None:
    (row,) = measure(["fedavg-cnn"], [0.25], batch=2, repeats=1)
    assert row["parameters_small"] < 0.2 * row["parameters"] and row["density"] < 0.2
    assert row["largest_difference"] < 1e-5 and row["times_faster"] > 0
