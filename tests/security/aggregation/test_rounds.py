"""A lost or mixed-up round is an error or right, never wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import secretflow as sf
from secretflow.security.aggregation.secagg.call import Operation
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.message import add_up
from secretflow.security.aggregation.secagg.participant import MaskUse, Participant, Request
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules

from .uploads import AVERAGE, VALUES, MakeClients, assert_average


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
            with pytest.raises(AggregationError, match="must hold finite numbers"):
                aggregator.average_at_parties(consortium.held(broken), prune_mask=prune_mask)
            assert_average(aggregator, data, prune_mask)
        np.testing.assert_allclose(sf.reveal(aggregator.average(data, axis=0)), AVERAGE, atol=1e-5)


@pytest.mark.parametrize("messages", [1, 3])
def test_a_driver_that_asks_for_too_few_or_too_many_messages_is_told(messages: int) -> None:
    names = ["alice", "bob"]
    parties = [Participant() for _ in names]
    for party, name in zip(parties, names, strict=True):
        party.make_client(name, names, Rules(Ring.make(32, None, 2), 1))
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


def test_two_aggregators_over_the_same_parties_do_not_disturb_each_other(consortium: Any) -> None:
    one, two = consortium.aggregator(3), consortium.aggregator(3)
    data = consortium.held(VALUES)
    for _ in range(2):
        assert_average(one, data)
        assert_average(two, data)
