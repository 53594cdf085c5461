"""A pad is never used twice, and a lost, repeated or mixed-up round is an error or right, never wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import secretflow as sf
from secretflow.security.aggregation.secagg import keyring as keyring_module
from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.message import add_up
from secretflow.security.aggregation.secagg.pads import Pads
from secretflow.security.aggregation.secagg.participant import MaskUse, Participant, Request
from secretflow.security.aggregation.secagg.ring import Ring
from tests.security.aggregation.stepwise import Stepwise as Client

MakeClients = Callable[..., list[Client]]
VALUES = [np.array([1.0, 2.0, 3.0]), np.array([3.0, 4.0, 8.0]), np.array([2.0, 3.0, 1.0])]
AVERAGE = [2.0, 3.0, 4.0]


def uploads(clients: list[Client], call: int, data: list[Any] | None = None) -> list[Any]:
    values = VALUES if data is None else data
    return [client.average(call, x) for client, x in zip(clients, values, strict=True)]


def assert_average(aggregator: Any, data: Any, masks: Any = None, expected: Any = AVERAGE) -> None:
    for result in sf.reveal(aggregator.average_at_parties(data, prune_mask=masks)).values():
        np.testing.assert_allclose(result, expected, atol=1e-5)


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
    fresh = Client("alice", ["alice", "bob"], ready._ring, 1)
    with pytest.raises(AggregationError, match="not agreed on keys"):
        fresh.average(1, VALUES[0])
    with pytest.raises(AggregationError, match="not agreed on keys"):
        fresh.propose(1, VALUES[0], [np.ones(3)])


def test_a_party_opens_the_sum_of_the_call_it_sealed_and_that_once(make_clients: MakeClients) -> None:
    clients = make_clients(3)
    first = add_up(uploads(clients, 1))
    second = add_up(uploads(clients, 2))
    with pytest.raises(AggregationError, match="expected the sum of call 2, got that of call 1"):
        clients[0].open(first)
    np.testing.assert_allclose(clients[1].open(second), AVERAGE, atol=1e-5)
    for client in clients[:2]:
        with pytest.raises(AggregationError, match="nothing was uploaded"):
            client.open(second)


@pytest.mark.parametrize("transposed", [False, True])
def test_an_average_opened_into_arrays_leaves_what_did_not_travel(
    make_clients: MakeClients, transposed: bool
) -> None:
    clients = make_clients(2)
    rng = np.random.default_rng(5)
    matrices = [rng.normal(size=(4, 6)).astype(np.float32) for _ in clients]
    data = [
        [matrix.T if transposed else matrix, np.array(k + 3), np.array([1.5 * k])]
        for k, matrix in enumerate(matrices)
    ]
    masks = [[rng.integers(0, 2, size=array[0].shape), None, None] for array in data]
    total = add_up([s.propose(1, x, m) for s, x, m in zip(clients, data, masks, strict=True)])
    for client in clients:
        client.settle(total)
    total = add_up([s.sparse_average(2, x) for s, x in zip(clients, data, strict=True)])
    arrays = [np.full_like(data[0][0], 7.0), np.array(0), np.array([0.0])]
    if transposed:
        arrays[0] = np.full((4, 6), 7.0, np.float32).T
        assert not arrays[0].flags.c_contiguous
    before = [array.copy() for array in arrays]
    with pytest.raises(AggregationError, match="got that of call 1"):
        clients[1].open_into({**total, "call": 1}, arrays)
    np.testing.assert_equal(arrays, before)
    clients[0].open_into(total, arrays)
    both = (masks[0][0] == 1) & (masks[1][0] == 1)
    expected = np.where(both, (data[0][0] + data[1][0]) / 2, 7.0)
    np.testing.assert_allclose(arrays[0], expected, atol=1e-5)
    assert arrays[1] == 3  # of 3.5; a counter stays a whole number
    np.testing.assert_allclose(arrays[2], [0.75], atol=1e-5)


def test_counts_of_an_earlier_agreement_are_refused(make_clients: MakeClients) -> None:
    clients = make_clients(2)
    earlier = add_up([client.propose(1, VALUES[0], [np.ones(3)]) for client in clients])
    later = add_up([client.propose(2, VALUES[0], [np.array([1, 0, 1])]) for client in clients])
    with pytest.raises(AggregationError, match="counts are those of another"):
        clients[0].settle(earlier)
    clients[0].settle(later)
    with pytest.raises(AggregationError, match="must be proposed"):
        clients[0].settle(later)


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
            return client.upload(Call(call, operation, weights), data)

        refused(field, partial(act, how=mine), partial(act, how=theirs))
    call += 1
    refused("call", lambda s: s.average(call, zeros), lambda s: s.average(call + 1, zeros))
    call += 2
    refused(
        "encoding",
        lambda s: s.propose(call, zeros, [np.ones((2, 3))]),
        lambda s: s.propose(call, zeros, [None]),
    )


def test_parties_of_another_ring_or_other_masks_are_not_added(make_clients: MakeClients) -> None:
    narrow, wide = make_clients(2, ring_bits=32), make_clients(2, ring_bits=64)
    with pytest.raises(AggregationError, match="differ in encoding"):
        add_up([narrow[0].average(1, VALUES[0]), wide[1].average(1, VALUES[1])])
    settled = []
    for mask in ([1, 1, 0], [1, 0, 1]):
        clients = make_clients(2, at_least=1)
        total = add_up([client.propose(1, VALUES[0], [np.array(mask)]) for client in clients])
        for client in clients:
            client.settle(total)
        settled.append(clients)
    with pytest.raises(AggregationError, match="differ in layout"):
        add_up([settled[0][0].sparse_average(2, VALUES[0]), settled[1][1].sparse_average(2, VALUES[1])])


def test_a_lost_round_leaves_the_next_one_right(consortium: Any) -> None:
    aggregator = consortium.aggregator(3)
    data, masks = consortium.held(VALUES), consortium.held([[np.ones(3)]] * 3)
    for lost in range(3):
        broken = [x * np.inf if k == lost else x * 5 for k, x in enumerate(VALUES)]
        for prune_mask in (None, masks):
            with pytest.raises(AggregationError, match="does not fit"):
                aggregator.average_at_parties(consortium.held(broken), prune_mask=prune_mask)
            assert_average(aggregator, data, prune_mask)
        np.testing.assert_allclose(sf.reveal(aggregator.average(data, axis=0)), AVERAGE, atol=1e-5)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_after_a_lost_agreement_about_masks_the_old_ones_are_not_used(failing: int) -> None:
    """As Ray runs it: the caller does not see the error, and goes on with masks that were never settled."""
    names = ["alice", "bob", "carol"]
    parties = [Participant() for _ in names]
    for party, name in zip(parties, names, strict=True):
        party.make_client(name, names, Ring.make(32, None, 3), 2)
    agree_all([party._client.keys for party in parties])

    def begin(start: int, use: MaskUse, mask: Any) -> None:
        for party, x in zip(parties, VALUES, strict=True):
            party.begin_request(start, Request(Operation.AVERAGE, use), x, [mask])

    def agreed(start: int, mask: Any) -> list[Any]:
        begin(start, MaskUse.AGREE, mask)
        counts = add_up([party.advance(None) for party in parties])
        total = add_up([party.advance(counts) for party in parties])
        return [party.finish(total) for party in parties]

    for result in agreed(1, np.array([1, 1, 0])):
        np.testing.assert_allclose(result, [2.0, 3.0, 0.0], atol=1e-5)
    begin(2, MaskUse.AGREE, np.array([0, 1, 1]))
    parties[failing].begin_request(
        2, Request(Operation.AVERAGE, MaskUse.AGREE), VALUES[failing], [np.ones(7)]
    )
    for position, party in enumerate(parties):
        if position == failing:
            with pytest.raises(AggregationError, match="shape"):
                party.advance(None)
        else:
            party.advance(None)
    # The sum never came about, so nobody has settled anything.
    begin(3, MaskUse.LAST, None)
    for party in parties:
        with pytest.raises(AggregationError, match="agreement about these masks failed"):
            party.advance(None)
    for result in agreed(4, np.array([0, 1, 1])):
        np.testing.assert_allclose(result, [0.0, 3.0, 4.0], atol=1e-5)


@pytest.mark.parametrize("messages", [1, 3])
def test_a_driver_that_asks_for_too_few_or_too_many_messages_is_told(messages: int) -> None:
    names = ["alice", "bob"]
    parties = [Participant() for _ in names]
    for party, name in zip(parties, names, strict=True):
        party.make_client(name, names, Ring.make(32, None, 2), 1)
    agree_all([party._client.keys for party in parties])
    for party, x in zip(parties, VALUES, strict=False):
        party.begin_request(1, Request(Operation.AVERAGE, MaskUse.AGREE), x, [np.ones(3)])
    total = add_up([party.advance(None) for party in parties])
    if messages == 1:
        with pytest.raises(AggregationError, match="fewer were asked for"):
            parties[0].finish(total)
    else:
        total = add_up([party.advance(total) for party in parties])
        with pytest.raises(AggregationError, match="more messages were asked for"):
            parties[0].advance(total)


def test_after_a_refused_mask_an_old_or_a_new_one_is_agreed_on(consortium: Any) -> None:
    aggregator, data = consortium.aggregator(3), consortium.held(VALUES)
    some, wrong, other = (consortium.held([[np.array(mask)]] * 3) for mask in ([1, 1, 0], [1, 1], [0, 1, 1]))
    assert_average(aggregator, data, some, [2, 3, 0])
    with pytest.raises(AggregationError, match=r"prune_mask\[0\] has the shape \(2,\)"):
        aggregator.average_at_parties(data, prune_mask=wrong)
    assert_average(aggregator, data, some, [2, 3, 0])
    assert_average(aggregator, data, other, [0, 3, 4])


def test_masks_settled_for_other_shapes_are_refused(consortium: Any) -> None:
    aggregator = consortium.aggregator(3)
    masks = consortium.held([[np.ones(3)]] * 3)
    assert_average(aggregator, consortium.held(VALUES), masks)
    for data in ([x[:2] for x in VALUES], [x.astype("f4") for x in VALUES], [[x] for x in VALUES]):
        with pytest.raises(AggregationError, match="not settled masks for data of these shapes"):
            aggregator.average_at_parties(consortium.held(data), prune_mask=masks)
    assert_average(aggregator, consortium.held(VALUES), masks)


def test_two_aggregators_over_the_same_parties_do_not_disturb_each_other(consortium: Any) -> None:
    one, two = consortium.aggregator(3), consortium.aggregator(3)
    data = consortium.held(VALUES)
    for _ in range(2):
        assert_average(one, data)
        assert_average(two, data)


def test_a_mask_said_to_be_the_same_is_not_agreed_on_and_must_be_the_same(consortium: Any) -> None:
    aggregator = consortium.aggregator(3)
    data = consortium.held(VALUES)
    same, others = (
        consortium.held([[np.array(mask)] for mask in masks])
        for masks in ([[1, 0, 1]] * 3, [[1, 0, 1], [1, 0, 1], [1, 1, 0]])
    )
    for result in sf.reveal(aggregator.average_at_parties(data, prune_mask=same, same_mask=True)).values():
        np.testing.assert_allclose(result, AVERAGE * np.array([1, 0, 1]), atol=1e-5)
    assert set(sf.reveal(aggregator.payload_bytes()).values()) == {2 * 4}
    with pytest.raises(AggregationError, match="differ in layout"):
        sf.reveal(aggregator.average_at_parties(data, prune_mask=others, same_mask=True))
    assert_average(aggregator, data)
