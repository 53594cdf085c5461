"""Whatever happens on the network and when: the survivors' average to the bit, or a clean error; no hang."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import SurvivorServer
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rounding import UPLOAD_BITS

from .network import Network, openable
from .parties import Outcome, check_masked, clients_of, names_of, plain_average, steps
from .rounded import RoundedParty, check_rounded

ROUNDS = 3


class Schedules(RuleBasedStateMachine):
    """Messages are delivered in any order, twice, or never; connections break, parties stand still."""

    network: Network
    rounds_updates = False

    @initialize(
        parties=st.integers(3, 6),
        masked=st.booleans(),
        blind=st.booleans(),
        sums_ahead=st.booleans(),
        data=st.data(),
    )
    def begin(self, parties: int, masked: bool, blind: bool, sums_ahead: bool, data: Any) -> None:
        self.names, self.masked = names_of(parties), masked and not self.rounds_updates
        self.rounded: dict[str, RoundedParty] = {}
        bits = data.draw(st.sampled_from(UPLOAD_BITS)) if self.rounds_updates else None
        self.ring = Ring.make(32, None, parties)
        self.contributors = contributors = data.draw(st.integers(2, 3))
        fewest = max(parties // 2 + 1, contributors)
        self.rules = SurvivorRules.make(parties, data.draw(st.integers(fewest, parties)), contributors)
        # One loss more than may be, in some runs; without a bound nearly all runs would end at once.
        self.losses = parties - self.rules.min_survivors + data.draw(st.integers(0, 1))
        self.outcomes: dict[str, list[Outcome]] = {name: [] for name in self.names}
        clients = clients_of(
            self.names,
            self.rules,
            self.ring,
            blind,
            contributors,
            fixed_contributors=not self.masked,
            upload_bits=bits,
        )
        self.network = Network(
            SurvivorServer(self.names, self.rules, sums_ahead=sums_ahead),
            {name: self.steps(client, name) for name, client in zip(self.names, clients, strict=True)},
            self.outcomes,
        )

    def steps(self, client: SurvivingClient, name: str) -> Steps[None]:
        """What a party does."""
        if not self.rounds_updates:
            return steps(client, name, ROUNDS, self.masked, self.outcomes[name])
        self.rounded[name] = RoundedParty(client)
        return self.rounded[name].steps(ROUNDS, self.outcomes[name])

    def _some(self, queues: Any, data: Any) -> str:
        return data.draw(st.sampled_from([name for name, queue in queues.items() if queue]))

    @rule(data=st.data(), count=st.integers(1, 12))
    def deliver(self, data: Any, count: int) -> None:
        for _ in range(count):
            if any(self.network.up.values()):
                self.network.deliver_up(self._some(self.network.up, data))
            if any(self.network.down.values()):
                self.network.deliver_down(self._some(self.network.down, data))

    @rule()
    def deliver_what_is_under_way(self) -> None:
        for name in self.names:
            for _ in range(len(self.network.up[name])):
                self.network.deliver_up(name)
        for name in self.names:
            for _ in range(len(self.network.down[name])):
                self.network.deliver_down(name)

    @precondition(lambda self: any(self.network.up.values()))
    @rule(data=st.data())
    def repeat_one(self, data: Any) -> None:
        name = self._some(self.network.up, data)
        self.network.up[name].append(self.network.up[name][0])

    @precondition(lambda self: any(self.network.up.values()))
    @rule(data=st.data())
    def turn_round(self, data: Any) -> None:
        self.network.up[self._some(self.network.up, data)].reverse()

    @precondition(lambda self: self.losses and any(self.network.down.values()))
    @rule(data=st.data())
    def lose_one(self, data: Any) -> None:
        self.losses -= 1
        self.network.down[self._some(self.network.down, data)].popleft()

    @precondition(lambda self: self.losses and self.network.alive())
    @rule(data=st.data(), sticks=st.booleans())
    def lose_a_party(self, data: Any, sticks: bool) -> None:
        self.losses -= 1
        name = data.draw(st.sampled_from(self.network.alive()))
        (self.network.stick if sticks else self.network.cut)(name)

    @precondition(lambda self: len(self.network.server.waits_for()) <= 2)
    @rule()
    def time_out(self) -> None:
        self.network.time_out()

    def teardown(self) -> None:
        if not hasattr(self, "network"):
            return
        self.network.drain()
        for name, error in self.network.ended.items():
            assert error is None or isinstance(error, (AggregationError, TimeoutError)), (name, error)
            assert error is not None or len(self.outcomes[name]) == ROUNDS
            for number, outcome in enumerate(self.outcomes[name]):
                self.check(name, number, outcome)
        for parts in openable(self.network.said).values():
            assert len(parts) <= 1
            assert all(len(part) >= self.rules.min_survivors for part in parts)
        if not self.masked:  # with masks a round has two calls, and with bounds
            most = 2 if self.rounds_updates else 1
            assert all(len(calls) <= most for calls in self.network.released.values())
        for name in self.rounded:
            check_rounded(self.rounded, self.outcomes[name], name)

    def check(self, name: str, number: int, outcome: Outcome) -> None:
        if not outcome.survivors:
            return
        assert len(outcome.survivors) >= self.rules.min_survivors
        if self.rounds_updates:
            return  # it rests on the rounds before
        plain = plain_average(self.names, outcome.survivors, number, self.ring)
        if self.masked:
            check_masked(self.names, outcome, name, number, self.ring, self.contributors)
            plain, got = plain[1:], outcome.average[1:]
        else:
            got = outcome.average
        for mine, expected in zip(got, plain, strict=True):
            np.testing.assert_array_equal(mine, expected)


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


TestSomeSchedules = Schedules.TestCase
TestSomeSchedules.settings = _settings(40)


class RoundedSchedules(Schedules):
    """So it is of updates of a few bits; of a lost round nothing is kept."""

    rounds_updates = True


TestSomeRoundedSchedules = RoundedSchedules.TestCase
TestSomeRoundedSchedules.settings = _settings(20)


class _ManyRoundedSchedules(RoundedSchedules):
    pass


TestManyRoundedSchedules = pytest.mark.faults(_ManyRoundedSchedules.TestCase)
TestManyRoundedSchedules.settings = _settings(1000)


class _ManySchedules(Schedules):
    pass


TestManySchedules = pytest.mark.faults(_ManySchedules.TestCase)
TestManySchedules.settings = _settings(1000)
