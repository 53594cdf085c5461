"""The benchmark of the rules about contributors measures what it says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import secretflow as sf
from benchmarks.contributors import RULES, cells, measure, summary
from benchmarks.contributors_run import SERVER, Recipe, party_names
from experiments.data import Images

RECIPE = Recipe(rows=1000, epochs=2, prune_end_epoch=1, test_rows=50)


@pytest.fixture
def parties() -> Iterator[None]:
    sf.init([*party_names(5), SERVER], debug_mode=True, logging_level="error")
    yield
    sf.shutdown()


@pytest.fixture
def images() -> Images:
    generator = np.random.default_rng(0)
    return Images(
        generator.integers(0, 256, (1000, 28, 28), np.uint8),
        generator.integers(0, 10, 1000, np.uint8),
        generator.integers(0, 256, (50, 28, 28), np.uint8),
        generator.integers(0, 10, 50, np.uint8),
    )


def test_runs_differ_in_the_rules_and_cost_bytes_less_with_them(parties: None, images: Images) -> None:
    five = cells(["local"], [5], [0.1], [1])[0]
    rows = [measure(five, rules, images, RECIPE) for rules in RULES]
    sizes = {row["rules"]: row["bytes"] for row in rows}
    assert sizes["default"] <= sizes["three"] < sizes["without"]
    cell, overall = summary(rows)
    assert cell["seeds"] == 1 and cell["density"] == 0.1 and overall["default"] == cell["default"]
    assert cell["three"]["bytes"] == round(sizes["three"] / sizes["without"], 3)
    assert summary(rows[:2]) == [{"seeds": 0}]


def test_with_one_mask_the_rules_change_nothing(parties: None, images: Images) -> None:
    five = cells(["global"], [5], [0.1], [1])[0]
    rows = [measure(five, rules, images, RECIPE) for rules in RULES]
    assert summary(rows)[0]["default"] == {"points_lost": 0, "points_lost_most": 0, "bytes": 1}
