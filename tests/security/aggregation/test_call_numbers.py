"""A pad is never used twice: every call has a number of its own, which parties and server hold to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.secagg import keyring as keyring_module
from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.message import add_up
from secretflow.security.aggregation.secagg.pads import Pads
from secretflow.security.aggregation.secagg.rules import Rules
from tests.security.aggregation.stepwise import Stepwise as Client

from .uploads import AVERAGE, VALUES, MakeClients, uploads


@pytest.mark.parametrize("server_blind", [False, True])
def test_no_key_meets_a_call_number_twice_over_rounds_errors_mask_changes_and_aggregators(
    consortium: Any, monkeypatch: pytest.MonkeyPatch, server_blind: bool
) -> None:
    added: Counter[tuple[bytes, int]] = Counter()
    subtracted: Counter[tuple[bytes, int]] = Counter()

    class Recorded(Pads):
        def __init__(self, keys: Any, call: int) -> None:
            for key, negative in keys:
                (subtracted if negative else added)[key, call] += 1
            super().__init__(keys, call)

    monkeypatch.setattr(keyring_module, "Pads", Recorded)
    data, bad = consortium.held(VALUES), consortium.held([*VALUES[:2], VALUES[2] * np.nan])
    masks, others = (consortium.held([[np.array(m)]] * 3) for m in ([1, 1, 1], [1, 0, 1]))
    for _ in range(2):
        aggregator = consortium.aggregator(3, server_blind=server_blind)
        for _ in range(3):
            aggregator.average_at_parties(data)
            aggregator.average_at_parties(data, prune_mask=masks)
            with pytest.raises(AggregationError):
                aggregator.average_at_parties(bad)
            with pytest.raises(AggregationError):
                aggregator.average_at_parties(data, prune_mask=consortium.held([[np.ones(2)]] * 3))
            aggregator.average_at_parties(data, prune_mask=others)
            if not server_blind:
                aggregator.sum(data)
    assert len(added) > 50
    # Each pair's pad is added by one of the two and the group's by one party; all others subtract.
    assert set(added.values()) == {1}
    if not server_blind:
        assert set(subtracted.values()) == {1}


def test_the_same_numbers_look_new_in_every_call(make_clients: MakeClients) -> None:
    client = make_clients(2)[0]
    bodies = [client.average(call, np.zeros(64))["body"][0] for call in range(1, 20)]
    words = np.concatenate([body.view("<u8") for body in bodies])
    assert len(np.unique(words)) == words.size


@pytest.mark.parametrize("call", [4, 5])
def test_a_party_refuses_a_call_number_it_has_seen_or_passed(make_clients: MakeClients, call: int) -> None:
    clients = make_clients(3)
    uploads(clients, 5)
    for act in (
        lambda: clients[0].average(call, VALUES[0]),
        lambda: clients[0].sum(call, VALUES[0]),
        lambda: clients[0].propose(call, VALUES[0], [np.ones(3)]),
    ):
        with pytest.raises(
            AggregationError, match=rf"call {call} is not larger than the last one of alice, 5"
        ):
            act()
    messages = uploads(clients, 6)
    np.testing.assert_allclose(clients[0].open(add_up(messages)), AVERAGE, atol=1e-5)


def test_skipped_call_numbers_do_no_harm(make_clients: MakeClients) -> None:
    clients = make_clients(3)
    clients[1].average(3, VALUES[1])
    total = add_up(uploads(clients, 9))
    np.testing.assert_allclose(clients[2].open(total), AVERAGE, atol=1e-5)


def test_nothing_is_uploaded_before_keys_are_agreed(make_clients: MakeClients) -> None:
    ready = make_clients(2)[0]
    fresh = Client("alice", ["alice", "bob"], Rules(ready.rules.ring, 1))
    with pytest.raises(AggregationError, match="not agreed on keys"):
        fresh.average(1, VALUES[0])
    with pytest.raises(AggregationError, match="not agreed on keys"):
        fresh.propose(1, VALUES[0], [np.ones(3)])


def test_a_party_opens_the_sum_of_the_call_it_sealed_and_that_once(make_clients: MakeClients) -> None:
    clients = make_clients(3)
    first = add_up(uploads(clients, 1))
    second = add_up(uploads(clients, 2))
    with pytest.raises(AggregationError, match="the sum must be that of call 2, got that of call 1"):
        clients[0].open(first)
    np.testing.assert_allclose(clients[1].open(second), AVERAGE, atol=1e-5)
    for client in clients[:2]:
        with pytest.raises(AggregationError, match="nothing was uploaded"):
            client.open(second)


def test_payloads_of_different_calls_inputs_or_encodings_are_not_added(make_clients: MakeClients) -> None:
    one, two, three = make_clients(3)
    call = 0

    def refused(field: str, act: Callable[[Client], Any], other: Callable[[Client], Any]) -> None:
        with pytest.raises(AggregationError, match=f"differ in {field}"):
            add_up([act(one), act(two), other(three)])

    zeros = np.zeros((2, 3), "f4")
    average = Operation.AVERAGE
    for field, mine, theirs in (
        ("layout", (average, (), zeros), (average, (), zeros.T)),
        ("layout", (average, (), zeros), (average, (), zeros.astype("f8"))),
        ("layout", (average, (), zeros), (average, (), [zeros])),
        ("layout", (average, (), [zeros, zeros]), (average, (), [zeros])),
        ("encoding", (average, (), zeros), (Operation.SUM, (), zeros)),
        ("encoding", (average, (1, 1, 1), zeros), (average, (1.0, 1, 1), zeros)),
    ):
        call += 1

        def act(client: Client, how: Any, call: int = call) -> Any:
            operation, weights, data = how
            return client.upload(Call(call, operation, client.weights_of(weights)), data)

        refused(field, partial(act, how=mine), partial(act, how=theirs))
    call += 1
    refused("call", lambda s: s.average(call, zeros), lambda s: s.average(call + 1, zeros))
    call += 2
    refused(
        "encoding",
        lambda s: s.propose(call, zeros, [np.ones((2, 3))]),
        lambda s: s.propose(call, zeros, [None]),
    )
