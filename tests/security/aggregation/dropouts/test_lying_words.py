"""What a server says out of its turn, or of parties that are none: refused, and not waited for for ever."""

from __future__ import annotations

from typing import NoReturn

import pytest

from secretflow.security.aggregation.secagg.dropouts.joining import join
from secretflow.security.aggregation.secagg.dropouts.protocol import answer_to
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.survival import Survival
from secretflow.security.aggregation.secagg.dropouts.wire import Lost, Members, Report, ToParty, ToServer
from secretflow.security.aggregation.secagg.errors import AggregationError, ChannelClosedError
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.transport.network.stream import PartyStream, drive

NAMES = ("alice", "bob", "carol")


class Talkative(PartyStream):
    """A server that always has something to say, of a call that is over."""

    def __init__(self) -> None:
        self.said = 0

    def send(self, message: ToServer) -> None:
        """Nothing is sent."""

    def receive(self, seconds: float) -> ToParty:
        """Comes at once, however short the wait."""
        self.said += 1
        return Lost(1, NAMES)


def test_who_is_told_old_news_for_ever_waits_no_longer_than_for_none() -> None:
    server = Talkative()
    with pytest.raises(ChannelClosedError, match=r"an answer must come within 0\.2 seconds, got others"):
        drive(answer_to(Report(2, b"")), server, 0.2)
    assert server.said > 1


def never(names: tuple[str, ...]) -> NoReturn:
    raise AssertionError(f"no client is made for {names}")


def test_a_party_named_twice_is_no_two_survivors() -> None:
    steps = join(never, "alice")
    next(steps)
    with pytest.raises(AggregationError, match="members must be named once each, got alice, alice, carol"):
        steps.send(Members(("alice", "alice", "carol")))


def test_who_takes_no_part_is_no_survivor() -> None:
    rules = Rules.make(Ring.make(32, None, 3), 3)
    survival = Survival("server", NAMES, rules, SurvivorRules.make(3, 2, 2), 1.0, None)
    with pytest.raises(AggregationError, match="members must be of alice, bob, carol, got mallory"):
        survival.client("alice", ("alice", "bob", "mallory"))
