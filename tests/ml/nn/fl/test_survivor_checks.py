"""A fit over a network that may lose parties takes rows in an order that never comes again."""

from __future__ import annotations

from typing import Any

import pytest

from secretflow.ml.nn.fl.options import FitOptions
from secretflow.ml.nn.fl.survivor_checks import check_surviving_fit

from .conftest import Task

NETWORK: dict[str, Any] = {"steps_per_epoch": 4, "shuffle": True}


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"random_seed": 3}, "random_seed of fit must be None with min_survivors over a network"),
        ({"random_seed": 0}, "random_seed of fit must be None with min_survivors over a network"),
        ({"shuffle": False}, "shuffle must be True with steps_per_epoch"),
        ({"steps_per_epoch": None, "shuffle": False}, "steps_per_epoch must be a number with min_survivors"),
        ({"steps_per_epoch": "all"}, "steps_per_epoch must be a number with min_survivors"),
    ],
    ids=str,
)
def test_rows_in_an_order_that_others_know_or_that_comes_again_are_refused(
    task: Task, changed: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        check_surviving_fit(FitOptions(task.x, task.y, **NETWORK | changed), over_a_network=True)


def test_in_a_simulation_a_seed_gives_the_same_rows(task: Task) -> None:
    check_surviving_fit(FitOptions(task.x, task.y, **NETWORK), over_a_network=True)
    check_surviving_fit(FitOptions(task.x, task.y, random_seed=3), over_a_network=False)
