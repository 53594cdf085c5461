"""What a party draws without a seed is known to nobody else."""

from __future__ import annotations

import torch

from secretflow.ml.nn.fl.backend.torch.strategy.fed_avg_w_prune import FedAvgWPrune
from secretflow.ml.nn.fl.worker.training import PartyFit

from .conftest import Mlp, Task

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
