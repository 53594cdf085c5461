"""The benchmark of bytes counts what goes through sockets, and compares with whole numbers."""

from __future__ import annotations

import pytest

from benchmarks.bytes import lost, verdicts
from benchmarks.bytes_fits import BITS, NETS, SEEDS
from benchmarks.bytes_wire import ROUNDS, bytes_of


@pytest.mark.parametrize("scope", ["global", "local"])
def test_bytes_are_those_of_the_lanes_and_little_more(scope: str) -> None:
    found = bytes_of(3, 8, 0.01, scope)  # type: ignore[arg-type]
    whole = bytes_of(3, None, 0.01, scope)  # type: ignore[arg-type]
    assert found["living"] == whole["living"]
    lanes = 59 / 6 / 8  # bytes of a number in the sum of three parties
    ballot = 2 / 8 * 1.25 / ROUNDS if scope == "local" else 0
    for way in ("up", "down"):
        each = found[way] / found["living"]
        assert each < lanes + ballot + 0.1
        assert scope == "local" or lanes < each  # with masks of their own not all that lives travels
        assert found[way] < 0.4 * whole[way]


def test_points_lost_are_means_over_the_seeds() -> None:
    fits = [
        {"net": net, "seed": seed, "bits": bits, "accuracy": 98.0 - (0.1 * seed if bits == 8 else 0)}
        for net in NETS
        for seed in SEEDS
        for bits in BITS
    ]
    found = lost(fits)
    assert found["perceptron"] == {"8": pytest.approx(0.1), "4": 0, "2": 0}
    assert lost(fits[1:]).keys() == NETS.keys() - {"perceptron"}, "a net that is not complete is left out"


def test_a_missed_target_is_said() -> None:
    result = {
        "bytes_per_weight": {"16": {"8": 1.5, "4": 1.01}},
        "points_lost": {"net": {"8": 0.31, "4": 0.5}},
        "cnn_0.05_over_dense_float32": 0.019,
        "client": [{"parties": 3, "over_whole_numbers": {"8": 0.9, "4": 1.1}}],
    }
    assert list(verdicts(result).values()) == [True, False, False, True, True, False]
