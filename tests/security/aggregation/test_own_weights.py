"""Weights that stay at their parties: the total is known, and nobody's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import secretflow as sf
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.message import Message, add_up
from secretflow.security.aggregation.secagg.protocol import Exchanges
from secretflow.security.aggregation.secagg.weighing import weigh, weigh_rounds

from .views import MakeClients


def exchanged(
    clients: Sequence[Client], act: Callable[[Client, Any], Exchanges[Any]], own: Sequence[Any]
) -> tuple[list[Any], list[Message]]:
    """What comes out at each party, and all that a party was told on the way."""
    running = [act(client, value) for client, value in zip(clients, own, strict=True)]
    for client in clients:
        client.number_calls(1)
    messages, told = [next(one) for one in running], []
    while True:
        total = add_up(messages)
        told.append(total)
        results: list[Any] = []
        messages = []
        for one in running:
            try:
                messages.append(one.send(total))
            except StopIteration as end:
                results.append(end.value)
        if results:
            return results, told


@pytest.mark.parametrize(
    ("act", "first", "second"),
    [
        (weigh, [5, 3, 7], [5, 6, 4]),
        (weigh, [0.5, 0.25, 7.75], [0.5, 5.5, 2.5]),
        (weigh_rounds, [[5, 9], [3, 3], [7, 8]], [[5, 9], [6, 6], [4, 5]]),
    ],
)
def test_parties_learn_the_total_of_the_weights_and_nobodys_own(
    make_clients: MakeClients, act: Any, first: list[Any], second: list[Any]
) -> None:
    """Whatever two others have, if it adds up to the same, a party is told the very same bits."""
    views = []
    for own in (first, second):
        results, told = exchanged(make_clients(3, seed=3), act, own)
        views.append([[part.tobytes() for part in total["body"]] for total in told])
        for k, found in enumerate(results):
            for weights in found if isinstance(found, list) else [found]:
                assert weights.counting == weights.parties == 3
            last = found[-1] if isinstance(found, list) else found
            assert last.weight == (own[k][-1] if isinstance(found, list) else own[k])
            assert last.total == sum(np.asarray(own)[:, -1] if isinstance(found, list) else own)
    assert views[0] == views[1]


def test_rounds_in_which_all_weigh_as_in_the_first_have_its_weights(make_clients: MakeClients) -> None:
    rows = [[4, 4, 4, 2], [8, 8, 8, 4], [4, 4, 5, 2]]
    results, _ = exchanged(make_clients(3), weigh_rounds, rows)
    for weights in results:
        assert weights[1] is weights[0]
        assert weights[2] is not weights[0] and weights[3] is not weights[0]
    assert [weights[2].total for weights in results] == [17] * 3


def test_a_party_without_rows_is_known_not_to_count_and_the_others_not_which_it_is(
    make_clients: MakeClients,
) -> None:
    for own in ([4, 0, 4, 4], [4, 4, 4, 0]):
        results, _ = exchanged(make_clients(4, at_least=3), weigh, own)
        assert [weights.counting for weights in results] == [3] * 4


def test_an_average_under_weights_at_the_parties_is_the_same_to_the_last_bit(consortium: Any) -> None:
    rng = np.random.default_rng(2)
    data = consortium.held([[rng.normal(size=(4, 5)), np.full((4, 1), k)] for k in range(3)])
    for weights in ([1, 2, 3], [0.5, 1.25, 3.0], [rng.integers(1, 9, (4, 1)) for _ in range(3)]):
        given, at_parties = (
            sf.reveal(consortium.aggregator(3).average(data, 0, chosen))
            for chosen in (weights, consortium.held(weights))
        )
        for one, other in zip(given, at_parties, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("bad", [-1, np.nan, 2.0**60])
def test_a_weight_that_is_no_weight_is_refused_at_its_party(consortium: Any, bad: float) -> None:
    data = consortium.held([np.ones(2)] * 3)
    with pytest.raises(AggregationError, match=r"weights must be numbers from 0 to 2\^53"):
        sf.reveal(consortium.aggregator(3).average(data, 0, consortium.held([1, 1, bad])))
