"""A fit over a network that may lose parties takes rows in an order that never comes again."""

from __future__ import annotations

from typing import Any

import pytest

import secretflow.distributed as sfd
from secretflow.distributed.primitive import DISTRIBUTION_MODE
from secretflow.ml.nn.fl.options import FitOptions
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.survivor_checks import check_surviving_fit, check_survivors

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


def test_over_a_network_all_are_told_the_seed_of_the_initial_weights() -> None:
    before = sfd.get_distribution_mode()
    sfd.set_distribution_mode(DISTRIBUTION_MODE.RAY_PRODUCTION)
    try:
        check_survivors(PruneSettings(), None, random_seed=0)
        with pytest.raises(ValueError, match="random_seed of FLModel must be a number with min_survivors"):
            check_survivors(PruneSettings(), None, random_seed=None)
        sfd.set_distribution_mode(DISTRIBUTION_MODE.SIMULATION)
        check_survivors(PruneSettings(), None, random_seed=None)
    finally:
        sfd.set_distribution_mode(before)
