"""Calls end with those who are there: their average to the bit, or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Step, SurvivorServer
from secretflow.security.aggregation.secagg.errors import AggregationError, TooFewSurvivorsError
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules

from .network import Network, openable
from .parties import Outcome, clients_of, names_of, plain_average, steps
from .rounded import RoundedParty, check_rounded

both_ways = pytest.mark.parametrize("sums_ahead", [False, True], ids=["total", "ahead"])
"""The server takes the pads off a sum, or each party does."""


class Run:
    """Some rounds of some parties on a simulated network."""

    def __init__(
        self,
        parties: int,
        rounds: int = 2,
        min_survivors: int | None = None,
        blind: bool = False,
        max_colluders: float | None = None,
        upload_bits: int | None = None,
        sums_ahead: bool = False,
    ) -> None:
        self.names = names_of(parties)
        self.ring = Ring.make(32, None, parties)
        rules = SurvivorRules.make(parties, min_survivors or parties // 2 + 1, 2)
        self.outcomes: dict[str, list[Outcome]] = {name: [] for name in self.names}
        clients = clients_of(
            self.names, rules, self.ring, blind, max_colluders=max_colluders, upload_bits=upload_bits
        )
        self.neighbours = clients[0].rules.neighbours
        self.rounded = {c.party: RoundedParty(c) for c in clients} if upload_bits is not None else {}
        self.network = Network(
            SurvivorServer(self.names, rules, sums_ahead=sums_ahead),
            {
                name: self.rounded[name].steps(rounds, self.outcomes[name])
                if self.rounded
                else steps(client, name, rounds, False, self.outcomes[name])
                for name, client in zip(self.names, clients, strict=True)
            },
            self.outcomes,
        )

    def until(self, step: Step) -> None:
        """Delivers messages until the server waits for this."""
        network = self.network
        while network.server.step is not step:
            for name in self.names:
                if network.up[name] and network.server.step is not step:
                    network.deliver_up(name)
            for name in self.names:
                if network.down[name] and network.server.step is not step:
                    network.deliver_down(name)

    def lose_a_third(self) -> list[str]:
        """Cuts ten of 32 parties off, delivers all else, and returns who is left."""
        lost = self.names[::3][:10]
        for name in lost:
            self.network.cut(name)
        self.network.drain()
        return [name for name in self.names if name not in lost]

    def check(self, number: int, survivors: Sequence[str]) -> None:
        """Looks whether all of them have the average of them all, bit by bit."""
        plain = plain_average(self.names, survivors, number, self.ring)
        for name in survivors:
            outcome = self.outcomes[name][number]
            assert outcome.survivors == tuple(survivors)
            for got, expected in zip(outcome.average, plain, strict=True):
                np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("blind", [False, True])
@both_ways
def test_with_none_lost_it_is_the_average_of_all(blind: bool, sums_ahead: bool) -> None:
    run = Run(4, blind=blind, sums_ahead=sums_ahead)
    run.network.drain()
    for number in range(2):
        run.check(number, run.names)
    assert set(run.network.ended.values()) == {None}


@pytest.mark.parametrize("blind", [False, True])
@both_ways
def test_a_third_of_32_lost_before_the_upload_leaves_the_average_of_the_others(
    blind: bool, sums_ahead: bool
) -> None:
    run = Run(32, blind=blind, sums_ahead=sums_ahead)
    left = run.lose_a_third()
    for number in range(2):
        run.check(number, left)


@pytest.mark.parametrize("blind", [False, True])
@both_ways
def test_a_third_of_32_lost_before_the_agreement_leaves_the_average_of_the_others(
    blind: bool, sums_ahead: bool
) -> None:
    run = Run(32, blind=blind, sums_ahead=sums_ahead)
    run.until(Step.ANSWERS)
    left = run.lose_a_third()
    for number in range(2):
        run.check(number, left)


@pytest.mark.parametrize("blind", [False, True])
@both_ways
def test_a_third_of_32_lost_after_the_agreement_leaves_no_average_and_the_next_round_has_one(
    blind: bool, sums_ahead: bool
) -> None:
    run = Run(32, blind=blind, sums_ahead=sums_ahead)
    run.until(Step.RELEASES)
    left = run.lose_a_third()
    assert all(run.outcomes[name][0].survivors == () for name in left)
    run.check(1, left)
    sums = openable(run.network.said)
    assert sums[1] == []
    assert sums[2] == [frozenset(left)]


def test_a_stuck_party_is_gone_after_the_deadline_and_is_told_so_when_it_wakes() -> None:
    run = Run(4)
    stuck = run.names[1]
    held = list(run.network.up[stuck])
    run.network.up[stuck].clear()
    for name in run.names:
        if name != stuck:
            run.network.deliver_up(name)
    run.network.time_out()
    run.network.up[stuck].extend(held)
    run.network.drain()
    run.check(0, [name for name in run.names if name != stuck])
    assert "gone on without this party" in str(run.network.ended[stuck])
    assert run.outcomes[stuck] == []


def test_a_silent_party_learns_as_all_others_that_too_few_are_left() -> None:
    run = Run(4, min_survivors=3)
    for name in run.names[:2]:
        run.network.deliver_up(name)
    run.network.time_out()
    run.network.drain()
    assert {type(error) for error in run.network.ended.values()} == {TooFewSurvivorsError}


def test_too_few_survivors_end_the_run_with_an_error_that_names_who_is_gone() -> None:
    run = Run(4, min_survivors=3)
    for name in run.names[:2]:
        run.network.cut(name)
    run.network.drain()
    for name in run.names[2:]:
        error = run.network.ended[name]
        assert isinstance(error, TooFewSurvivorsError)
        assert "gone: party00, party01" in str(error)
    assert not any(openable(run.network.said).values())


@pytest.mark.parametrize("blind", [False, True])
@both_ways
def test_a_quarter_of_48_with_neighbours_lost_leaves_the_average_of_the_others(
    blind: bool, sums_ahead: bool
) -> None:
    run = Run(48, min_survivors=36, blind=blind, max_colluders=0.2, sums_ahead=sums_ahead)
    assert run.neighbours is not None and run.neighbours < 47
    run.until(Step.ANSWERS)
    lost = run.names[::4]
    for name in lost:
        run.network.cut(name)
    run.network.drain()
    for number in range(2):
        run.check(number, [name for name in run.names if name not in lost])


@pytest.mark.parametrize("step", [Step.ANSWERS, Step.RELEASES])
@both_ways
def test_so_it_is_of_updates_of_a_few_bits(step: Step, sums_ahead: bool) -> None:
    run = Run(48, min_survivors=36, max_colluders=0.2, upload_bits=8, sums_ahead=sums_ahead)
    run.until(step)
    lost = run.names[::4]
    for name in lost:
        run.network.cut(name)
    run.network.drain()
    left = [name for name in run.names if name not in lost]
    for name in left:
        assert run.network.ended[name] is None
        assert run.outcomes[name][1].survivors == tuple(left)
        check_rounded(run.rounded, run.outcomes[name], name)


def test_neighbours_that_are_too_few_for_those_who_may_be_gone_are_refused() -> None:
    names = names_of(48)
    rules = Rules.make(Ring.make(32, None, 48), 48, 2, max_colluders=0.2, dropped=11)
    with pytest.raises(AggregationError, match="enough for 12 gone parties, got 11"):
        SurvivingClient(names[0], names, rules, SurvivorRules.make(48, 36, 2))


@pytest.mark.parametrize("min_survivors", [1, 2, 5])
def test_survivors_must_be_more_than_half(min_survivors: int) -> None:
    with pytest.raises(
        ValueError, match=f"min_survivors must be an integer from 3 to 4, got {min_survivors}"
    ):
        SurvivorRules.make(4, min_survivors, 2)
