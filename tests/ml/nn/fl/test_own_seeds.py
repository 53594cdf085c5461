"""What a party draws without a seed is known to nobody else."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from secretflow.ml.nn.fl.backend.torch.strategy.fed_avg_w_prune import FedAvgWPrune
from secretflow.ml.nn.fl.worker.training import PartyFit
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.survival import Streams, Survival
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules

from .conftest import ROWS_EACH, Mlp, Task

RULES = Rules.make(Ring.make(32, None, 2), 2, 2)
SURVIVAL = Survival("carol", ("alice", "bob"), RULES, SurvivorRules.make(2, 2, 2), 60.0, None)
STREAMS = Streams("", "", "", "carol", None, 1.0)
_KNOWN = 7
_GUESSED = 10**9  # a seed below can be tried out; one of 64 bits is below once in 10^10 times


class Watching(Mlp):
    """Takes down what torch's generator was seeded with in each step."""

    seeds: list[int] = []  # noqa: RUF012 - of all parties

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seeds.append(torch.initial_seed())
        return super().forward(x)


def test_without_a_seed_every_party_draws_its_own(task: Task) -> None:
    Watching.seeds.clear()
    model = task.make_model(Watching, random_seed=3)
    model.fit(task.x, task.y, epochs=2, batch_size=8, shuffle=True, verbose=0)
    assert Watching.seeds and min(Watching.seeds) > _GUESSED
    drawn = set()
    for worker in model._workers.values():
        party: FedAvgWPrune = worker.data._actor_handle
        party.begin_fit(9, PartyFit(steps=1), False)
        drawn.add(torch.initial_seed())
        party.abandon()
    assert len(drawn) == len(model._workers) and min(drawn) > _GUESSED


def test_with_a_seed_all_draw_the_same(task: Task) -> None:
    Watching.seeds.clear()
    task.make_model(Watching).fit(task.x, task.y, epochs=1, batch_size=8, random_seed=5, verbose=0)
    assert set(Watching.seeds) == {5}


def test_so_it_is_in_each_fit_that_may_lose_parties(task: Task) -> None:
    model = task.make_model(random_seed=3)
    model.fit(task.x, task.y, epochs=1, batch_size=8, verbose=0)
    drawn = set()
    for worker in model._workers.values():
        for _ in range(2):
            torch.manual_seed(_KNOWN)
            party: FedAvgWPrune = worker.data._actor_handle
            party.begin_surviving_fit(SURVIVAL, STREAMS, PartyFit(1), 0, True)
            drawn.add(torch.initial_seed())
            party.leave_fit()
    assert len(drawn) == 4 and min(drawn) > _GUESSED


def test_a_fit_that_may_lose_parties_takes_no_batch_of_all_rows_over_a_network(task: Task) -> None:
    model = task.make_model()
    model.fit(task.x, task.y, epochs=1, batch_size=ROWS_EACH, verbose=0)
    party: FedAvgWPrune = next(iter(model._workers.values())).data._actor_handle
    begin = partial(party.begin_surviving_fit, SURVIVAL, STREAMS, PartyFit(1), 0)
    with pytest.raises(ValueError, match=f"batch_size must be less than the rows of alice, {ROWS_EACH}"):
        begin(True)
    begin(False)  # in a simulation one program is told everything
