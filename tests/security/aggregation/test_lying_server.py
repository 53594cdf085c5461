"""A server that does not tell the truth: what it says of agreements, and what it tells to whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.secagg.ballot import Ballot
from secretflow.security.aggregation.secagg.call import Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.errors import AggregationError, DisagreementError
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.message import Message, add_up
from secretflow.security.aggregation.secagg.participant import MaskUse, Participant, Request
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.server import Server
from secretflow.security.aggregation.secagg.weighing import weigh

NAMES = ["alice", "bob", "carol"]
DATA = [[np.arange(40.0) + 100 * k] for k in range(3)]
# What Alice alone keeps is the second half.
MASKS = [[np.ones(40)], [np.arange(40) < 20], [np.arange(40) < 20]]
Lie = Callable[[str, Message], Message]


class LyingServer(Server):
    """Adds up as it should, and then tells each party what it likes."""

    def __init__(self, lie: Lie) -> None:
        super().__init__()
        self.lie = lie
        self.uploads: list[list[Message]] = []
        self.totals: list[Message] = []

    def told(self, *messages: Message) -> list[Message]:
        """What each party is told of a sum."""
        self.uploads.append(list(messages))
        self.totals.append(self.add(*messages))
        copies = [
            {**self.totals[-1], "body": [part.copy() for part in self.totals[-1]["body"]]} for _ in NAMES
        ]
        return [self.lie(name, Message(**copy)) for name, copy in zip(NAMES, copies, strict=True)]


class Cluster:
    """Parties and a server in this process, and nothing between them."""

    def __init__(self, lie: Lie, blind: bool = False) -> None:
        self.server = LyingServer(lie)
        self.parties = [Participant() for _ in NAMES]
        rules = Rules(Ring.make(32, None, 3), 3, server_blind=blind)
        for party, name in zip(self.parties, NAMES, strict=True):
            party.make_client(name, NAMES, rules)
        agree_all([party._client.keys for party in self.parties])
        self.starts = 0

    def average(self, data: list[Any], masks: list[Any] | None = None) -> list[Any]:
        """What comes out at each party: a result, or its error."""
        self.starts += 1
        use = MaskUse.NONE if masks is None else MaskUse.AGREE
        request = Request(Operation.AVERAGE, use, self.starts)
        for party, x, mask in zip(self.parties, data, masks or [None] * 3, strict=True):
            party.begin_request(self.starts, request, x, mask)
        told: list[Any] = [None] * len(NAMES)
        for _ in range(request.exchanges):
            messages = [
                self.caught(party.advance, total) for party, total in zip(self.parties, told, strict=True)
            ]
            if any(isinstance(message, Exception) for message in messages):
                return messages
            told = self.server.told(*messages)
        return [self.caught(party.finish, total) for party, total in zip(self.parties, told, strict=True)]

    @staticmethod
    def caught(act: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return act(argument)
        except AggregationError as error:
            return error


def truth(_: str, total: Message) -> Message:
    return total


def raised(party: str, total: Message) -> Message:
    """As if all kept what Alice alone keeps."""
    if total["encoding"].startswith("mask"):
        says = Ballot(3, counting=True, leaving=True)
        raises = says.cast([np.arange(40) >= 20], [np.zeros(40, bool)])
        total["body"][0] += 2 * raises
    return total


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize("to", [["alice"], NAMES])
def test_a_server_that_raises_the_counts_of_an_agreement_is_refused_before_anything_is_uploaded(
    blind: bool, to: list[str]
) -> None:
    cluster = Cluster(lambda party, total: raised(party, total) if party in to else total, blind)
    outcomes = cluster.average(DATA, MASKS)
    for name, outcome in zip(NAMES, outcomes, strict=True):
        if name in to:
            assert isinstance(outcome, DisagreementError)
        else:
            assert outcome["body"][0].size == 20, "what Alice alone keeps must be in no upload"
    assert len(cluster.server.uploads) == 1


@pytest.mark.parametrize("added", [1, 2**32 - 1])
@pytest.mark.parametrize("checksum", [0, 1, 2**56])
def test_counts_cannot_be_changed_together_with_their_checksum(added: int, checksum: int) -> None:
    def lie(_: str, total: Message) -> Message:
        if total["encoding"].startswith("mask"):
            total["body"][0][3:4] += np.uint32(added)
            total["body"][1] += np.uint64(checksum)
        return total

    outcomes = Cluster(lie).average(DATA, MASKS)
    assert all(isinstance(outcome, DisagreementError) for outcome in outcomes)


@pytest.mark.parametrize("blind", [False, True])
def test_what_parties_upload_after_they_were_told_different_averages_cannot_be_read(
    blind: bool, looks_uniform: Callable[[Any], bool]
) -> None:
    """The attack: a model of one's own for each party, and its next upload tells how it trains on it."""
    numbers = [[np.full(9000, k + 1.0)] for k in range(3)]

    def lie(party: str, total: Message) -> Message:
        if party == "alice" and total["call"] >> 32 == 1:
            total["body"][0] += np.uint32(1 << 20)
        return total

    cluster = Cluster(lie, blind)
    first = cluster.average(numbers)
    np.testing.assert_allclose(first[0][0] - first[1][0], 1, atol=1e-5)
    trained = [[outcome[0] + k / 7] for k, outcome in enumerate(first)]
    assert all(isinstance(outcome, DisagreementError) for outcome in cluster.average(trained))
    *uploads, total = [*cluster.server.uploads[-1], cluster.server.totals[-1]]
    assert all(looks_uniform(message["body"][:1]) for message in uploads)
    assert looks_uniform(total["body"][:1]), "the sum must be as good as random to the server"
    # It was said; from what all have, they go on.
    for outcome in cluster.average([[first[1][0] * k] for k in range(3)]):
        np.testing.assert_allclose(outcome[0], first[1][0], atol=1e-4)


def test_a_lie_is_not_forgotten_over_a_call_that_fails() -> None:
    def lie(party: str, total: Message) -> Message:
        if party == "alice" and total["call"] >> 32 == 1:
            total["body"][0] += np.uint32(1 << 20)
        return total

    cluster = Cluster(lie)
    cluster.average([[np.full(50, k + 1.0)] for k in range(3)])
    broken = cluster.average([[np.full(50, np.nan)] for k in range(3)])
    assert all("finite numbers" in str(error) for error in broken)
    outcomes = cluster.average([[np.full(50, k + 5.0)] for k in range(3)])
    assert all(isinstance(outcome, DisagreementError) for outcome in outcomes)


def test_a_server_that_tells_the_truth_is_believed() -> None:
    cluster = Cluster(truth)
    for k in range(3):
        for outcome in cluster.average([[x[0] * k] for x in DATA], MASKS):
            np.testing.assert_allclose(outcome[0][:20], (np.arange(20.0) + 100) * k, atol=1e-4)


@pytest.mark.parametrize("which", [0, 1])
def test_a_server_cannot_have_weights_count_that_do_not(which: int) -> None:
    """The attack: more parties seem to count than do, and what one who stands alone has is opened."""
    rules = Rules(Ring.make(64, None, 3), 3)
    clients = [Client(name, NAMES, rules) for name in NAMES]
    agree_all([client.keys for client in clients])
    running = [weigh(client, own) for client, own in zip(clients, [1, 1, 10**9], strict=True)]
    for client in clients:
        client.number_calls(1)
    messages = [next(one) for one in running]
    for _ in range(which):
        total = add_up(messages)
        messages = [one.send(total) for one in running]
    total = add_up(messages)
    total["body"][0][0] += np.uint64(2)
    for one in running:
        with pytest.raises(DisagreementError):
            one.send(total)
