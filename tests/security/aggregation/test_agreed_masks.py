"""An average uses the masks that were agreed on last, or fails."""

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


def test_counts_of_an_earlier_agreement_are_refused(make_clients: MakeClients) -> None:
    clients = make_clients(2)
    earlier = add_up([client.propose(1, VALUES[0], [np.ones(3)]) for client in clients])
    later = add_up([client.propose(2, VALUES[0], [np.array([1, 0, 1])]) for client in clients])
    with pytest.raises(AggregationError, match="counts are those of another"):
        clients[0].settle(earlier)
    clients[0].settle(later)
    with pytest.raises(AggregationError, match="must be proposed"):
        clients[0].settle(later)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_after_a_lost_agreement_about_masks_the_old_ones_are_not_used(failing: int) -> None:
    """As Ray runs it: the caller does not see the error, and goes on with masks that were never settled."""
    names = ["alice", "bob", "carol"]
    parties = [Participant() for _ in names]
    for party, name in zip(parties, names, strict=True):
        party.make_client(name, names, Rules(Ring.make(32, None, 3), 2))
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


def test_after_a_refused_mask_an_old_or_a_new_one_is_agreed_on(consortium: Any) -> None:
    aggregator, data = consortium.aggregator(3), consortium.held(VALUES)
    some, wrong, other = (consortium.held([[np.array(mask)]] * 3) for mask in ([1, 1, 0], [1, 1], [0, 1, 1]))
    assert_average(aggregator, data, some, [2, 3, 0])
    with pytest.raises(AggregationError, match=r"prune_mask\[0\] must have the shape .*, got \(2,\)"):
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


def test_an_agreement_that_a_party_never_heard_of_is_not_taken_for_its_last_one() -> None:
    """A weight or the data of a party has failed: it begins nothing, and its driver does not know."""
    names = ["alice", "bob"]
    parties = [Participant() for _ in names]
    for party, name in zip(parties, names, strict=True):
        party.make_client(name, names, Rules(Ring.make(32, None, 2), 1))
    agree_all([party._client.keys for party in parties])
    for party, x in zip(parties, VALUES, strict=False):
        party.begin_request(1, Request(Operation.AVERAGE, MaskUse.AGREE, 1), x, [np.array([1, 1, 0])])
    counts = add_up([party.advance(None) for party in parties])
    total = add_up([party.advance(counts) for party in parties])
    for party in parties:
        party.finish(total)
    for party, x in zip(parties, VALUES, strict=False):
        party.begin_request(3, Request(Operation.AVERAGE, MaskUse.LAST, 2), x, None)
        with pytest.raises(AggregationError, match="give new mask objects"):
            party.advance(None)
        party.begin_request(4, Request(Operation.AVERAGE, MaskUse.LAST, 1), x, None)
        assert party.advance(None)["body"][0].size == 2
