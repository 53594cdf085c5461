"""Objects of several parties in one process: each draws what it would draw in a process of its own."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import numpy as np
import pytest
import torch

from secretflow.device.shared_process import SharedProcess
from secretflow.device.tenants import Tenant


class Draws:
    """Draws from the generators that a whole process shares."""

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None:
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
        self.first = self.draw()

    def draw(self) -> tuple[float, float, float]:
        return torch.rand(()).item(), np.random.random(), random.random()

    def fail(self) -> None:
        self.draw()
        raise RuntimeError("failed")


def shared(**seeds: int | None) -> SharedProcess:
    process = SharedProcess()
    for party, seed in seeds.items():
        process.admit(party, Draws, seed)
    return process


def draws(process: SharedProcess, party: str, count: int) -> list[Any]:
    return [process.call(party, "draw") for _ in range(count)]


def test_parties_draw_in_turn_what_each_draws_alone() -> None:
    alone = draws(shared(alice=1), "alice", 4), draws(shared(bob=2), "bob", 4)
    both = shared(alice=1, bob=2)
    in_turn = [(both.call("alice", "draw"), both.call("bob", "draw")) for _ in range(4)]
    assert ([one for one, _ in in_turn], [other for _, other in in_turn]) == alone


def test_what_a_party_draws_before_it_fails_does_not_come_again_and_moves_nobody_elses() -> None:
    both, same = shared(alice=1, bob=1), shared(alice=1)
    with contextlib.suppress(RuntimeError):
        both.call("alice", "fail")
    expected = draws(same, "alice", 3)
    assert draws(both, "alice", 2) == expected[1:]
    assert draws(both, "bob", 3) == expected


def test_unseeded_parties_draw_like_new_processes() -> None:
    """A new process has torch's generator at its default, and the others anywhere."""
    both = shared(alice=None, bob=None)
    one, other = both.call("alice", "draw"), both.call("bob", "draw")
    assert one[0] == other[0] and one[1] != other[1] and one[2] != other[2]


def test_an_object_that_cannot_be_made_says_why_whenever_it_is_asked_for() -> None:
    process = shared(alice=1)
    for ask in (
        lambda: process.admit("bob", Draws, "no seed"),
        lambda: process.call("bob", "draw"),
        lambda: process.together(len, ["alice", "bob"]),
    ):
        with pytest.raises(ValueError):
            ask()
    assert process.call("alice", "draw")


def test_work_of_several_parties_is_given_their_objects_and_their_turns() -> None:
    both = shared(alice=1, bob=2)
    expected = [draws(shared(alice=1), "alice", 1)[0], draws(shared(bob=2), "bob", 1)[0]]

    def work(tenants: list[Tenant[Draws]], more: str) -> list[Any]:
        assert more == "more"
        found = []
        for tenant in tenants:
            with tenant.turn():
                found.append(tenant.held.draw())
        return found

    assert both.together(work, ["alice", "bob"], "more") == expected
