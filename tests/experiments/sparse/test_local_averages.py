"""Averages under masks of the parties' own: what they are divided by, and what becomes of lone weights."""

from __future__ import annotations

import pytest
import torch

from experiments.sparse.job import NUMBER, Job


def job() -> Job:
    # Kept by all three parties, by the first two, by the last one.
    masks = {"fc": torch.tensor([[1.0, 1, 0], [1, 1, 0], [1, 0, 1]])[:, None]}
    weights = {"fc": torch.tensor([[8.0, 4, 0], [4, 8, 0], [2, 0, 6]])[:, None]}
    made = Job(weights, masks, {}, seed=0, factors={}, step_power=0.0, epochs=1)
    made.samples = torch.tensor([1.0, 1, 2], dtype=torch.float64)
    return made


@pytest.mark.parametrize(
    ("over", "shared", "numbers"),
    [
        ("living", 6.0, 2 + 1),  # two that travel, and the share of the weight behind the second
        ("all", 3.0, 2),
    ],
)
def test_a_weight_that_some_have_pruned_is_averaged_over(over: str, shared: float, numbers: int) -> None:
    own = job()
    own.average_living(2, over)
    first, second, third = own.flat("fc").tolist()
    assert first == second == [4.0, shared, 0.0]
    assert third == [4.0, 0.0, 6.0]
    assert own.uploaded == NUMBER * numbers


@pytest.mark.parametrize(("lone", "left", "living"), [("own", 6.0, 1), ("part", 3.0, 1), ("pruned", 0.0, 0)])
def test_a_weight_that_too_few_keep_becomes(lone: str, left: float, living: int) -> None:
    own = job()
    own.average_living(2, "all", lone)
    assert own.flat("fc")[2].tolist() == [4.0, 0.0, left]
    assert own.masks["fc"][2, 0, 2] == living
