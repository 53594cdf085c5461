"""Neighbours in place of everybody: what is left of the graph stays connected, and the pads still cancel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretflow.security.aggregation.secagg.keyring import KeyRing, agree_all
from secretflow.security.aggregation.secagg.message import add_up
from secretflow.security.aggregation.secagg.neighbours import (
    EVERYBODY_UP_TO,
    FAILURE_BITS,
    degree_for,
    failure,
    neighbours_of,
)
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from tests.security.aggregation.stepwise import Stepwise

SESSION = bytes(range(32))


def names_of(parties: int) -> list[str]:
    return [f"party{k:03d}" for k in range(parties)]


def graph_of(parties: int, degree: int, session: bytes = SESSION) -> dict[str, set[str]]:
    names = names_of(parties)
    return {name: set(neighbours_of(name, names, session, degree)) for name in names}


def is_connected(graph: dict[str, set[str]], left: set[str]) -> bool:
    seen, waiting = set(), [min(left)]
    while waiting:
        party = waiting.pop()
        if party not in seen:
            seen.add(party)
            waiting += graph[party] & left
    return seen == left


@given(st.integers(3, 60), st.integers(1, 35), st.binary(min_size=32, max_size=32))
def test_neighbours_are_each_others_and_equally_many(parties: int, half: int, session: bytes) -> None:
    graph = graph_of(parties, 2 * half, session)
    expected = min(2 * half, parties - 1)
    for party, near in graph.items():
        assert len(near) == expected and party not in near
        assert all(party in graph[peer] for peer in near)


def test_another_session_has_another_graph_and_one_session_one() -> None:
    assert graph_of(50, 8) == graph_of(50, 8) != graph_of(50, 8, bytes(32))


def cheapest_cut(gone: Sequence[bool], half: int) -> int:
    """How many more must leave a circle for two runs of ``half`` to be gone, with somebody on either side.

    By going through all pairs of runs, which is not how the bound was made.
    """
    parties = len(gone)
    there = ~np.array(gone)
    before = np.concatenate([[0], np.cumsum([*there, *there])])  # how many are there in front of each place
    start = np.arange(parties)
    cost = before[start + half] - before[start]
    one, other = start[:, None], start[None, :]
    apart = (other - one >= half) & (one + parties - other >= half)
    between = before[other] - before[np.minimum(one + half, other)]
    around = before[one + parties] - before[np.minimum(other + half, one + parties)]
    total = np.where(apart & (between > 0) & (around > 0), cost[:, None] + cost[None, :], parties)
    return int(total.min())


@given(st.integers(5, 14), st.integers(1, 3), st.data())
def test_the_graph_falls_apart_only_where_two_runs_are_gone(
    parties: int, half: int, data: st.DataObject
) -> None:
    """Of the circle itself, in the order of the places."""
    if 2 * half >= parties - 1:
        return
    gone = data.draw(st.lists(st.booleans(), min_size=parties, max_size=parties).filter(lambda g: not all(g)))
    circle = {
        str(k): {str((k + step) % parties) for step in range(-half, half + 1) if step} for k in range(parties)
    }
    left = {str(k) for k in range(parties) if not gone[k]}
    assert is_connected(circle, left) == (cheapest_cut(gone, half) > 0)


@pytest.mark.parametrize(
    ("parties", "half", "colluders", "dropped"),
    [(24, 2, 12, 0), (40, 3, 20, 0), (40, 5, 13, 4), (64, 4, 21, 1), (64, 8, 21, 8)],
)
def test_the_bound_holds_in_random_draws(parties: int, half: int, colluders: int, dropped: int) -> None:
    """Degrees so low that it happens; the server takes away whom it likes best."""
    rng, draws = np.random.default_rng(half), 1500
    failed = 0
    for _ in range(draws):
        gone = np.zeros(parties, bool)
        gone[rng.choice(parties, colluders, replace=False)] = True
        failed += cheapest_cut(gone.tolist(), half) <= dropped
    bound = min(1.0, float(Fraction(*failure(parties, half, colluders, dropped))))
    assert failed
    assert failed / draws <= bound + 4 * np.sqrt(bound * (1 - bound) / draws)


@pytest.mark.parametrize(
    ("parties", "colluders", "dropped"),
    [(40, 26, 0), (100, 33, 10), (100, 66, 0), (256, 85, 0), (256, 170, 0), (256, 85, 25)],
)
def test_the_degree_is_the_fewest_that_the_bound_allows(parties: int, colluders: int, dropped: int) -> None:
    degree = degree_for(parties, colluders, dropped)

    def allowed(half: int) -> bool:
        return Fraction(*failure(parties, half, colluders, dropped)) <= Fraction(1, 2**FAILURE_BITS)

    assert degree % 2 == 0 and degree < parties - 1
    assert allowed(degree // 2) and not allowed(degree // 2 - 1)


@pytest.mark.parametrize("parties", [33, 64, 100])
@pytest.mark.parametrize("part", [0.0, 0.1, 1 / 3])
@pytest.mark.parametrize("left", [0.51, 0.75, 0.9])
def test_the_neighbours_of_all_are_enough_for_the_sessions_of_those_who_are_left(
    parties: int, part: float, left: float
) -> None:
    """As many must be left of fewer parties, so fewer of them may be gone."""
    colluders, fewest = int(part * parties), int(left * parties) + 1
    degree = degree_for(parties, colluders, parties - fewest)
    for there in range(fewest, parties):
        assert degree_for(there, min(colluders, there - 2), there - fewest) <= degree


def test_two_honest_parties_that_are_there_need_everybody() -> None:
    for parties in (2, 3, 10, 33, 256):
        assert degree_for(parties, parties - 2) == parties - 1
    assert degree_for(40, 30, dropped=8) == 39


def test_rules_have_neighbours_from_thirty_three_parties_on_unless_the_user_says_otherwise() -> None:
    def neighbours(parties: int, part: float | None = None, dropped: int = 0) -> int | None:
        ring = Ring.make(32, None, parties)
        return Rules.make(ring, parties, max_colluders=part, dropped=dropped).neighbours

    assert neighbours(EVERYBODY_UP_TO) is None
    assert neighbours(EVERYBODY_UP_TO + 1) == degree_for(33, 22)
    assert neighbours(256) == 76 and neighbours(256, 1 / 3) == 32 and neighbours(256, 1) is None
    assert neighbours(16, 1 / 3) == 6
    assert neighbours(256, 1 / 3, dropped=25) == degree_for(256, 85, 25)
    with pytest.raises(ValueError, match=r"^max_colluders must be .*, got 1\.5"):
        neighbours(40, 1.5)


def clients_of(parties: int, part: float | None) -> list[Stepwise]:
    rules = Rules.make(Ring.make(32, None, parties), parties, max_colluders=part)
    clients = [Stepwise(name, names_of(parties), rules) for name in names_of(parties)]
    agree_all([client.keys for client in clients])
    return clients


def test_pads_shared_with_neighbours_alone_cancel_in_the_sum_of_all_and_hide_that_of_some(
    looks_uniform: Callable[[Sequence[np.ndarray]], bool],
) -> None:
    parties, size = 36, 6000
    clients = clients_of(parties, 1 / 3)
    assert {len(client.keys._ratchets) for client in clients} == {degree_for(parties, 12)}
    numbers = np.random.default_rng(0).normal(size=(parties, size)).astype(np.float32)
    uploads = [client.average(1, [own]) for client, own in zip(clients, numbers, strict=True)]
    assert looks_uniform(uploads[0]["body"])
    assert looks_uniform(add_up(uploads[:-1])["body"])
    assert looks_uniform(add_up(uploads[: parties // 2])["body"])
    total = add_up(uploads)
    for client in clients:
        np.testing.assert_allclose(client.open(total)[0], numbers.mean(axis=0), atol=parties * 2.0**-20)


def test_what_colluding_neighbours_leave_on_an_upload_is_a_pad_of_the_honest() -> None:
    """All pads but those between the honest taken off, the honest uploads are uniform but for their sum."""
    clients = clients_of(36, 1 / 3)
    honest = {client.party for client in clients[12:]}
    graph = {client.party: set(client.keys._ratchets) for client in clients}
    assert is_connected(graph, honest)


def test_a_key_exchanged_between_two_parties_is_found_out_by_its_owners_neighbours() -> None:
    names = names_of(36)
    rings = [KeyRing(name, names, degree=8) for name in names]
    victim, mallory = rings[0], KeyRing(names[0], names, degree=8)
    honest = [ring.public_key() for ring in rings]
    false = [mallory.public_key(), *honest[1:]]
    confirmations = [victim.agree(*honest), *(ring.agree(*false) for ring in rings[1:])]
    refused = []
    for ring in rings:
        try:
            ring.confirm(*confirmations)
        except Exception as error:
            assert "do not have the same keys" in str(error)
            refused.append(ring)
    assert victim in refused and set(refused[1:]) == {
        ring for ring in rings[1:] if names[0] in ring._expected_codes
    }


def test_more_parties_than_a_byte_counts_agree_on_masks_and_average() -> None:
    parties = 300
    clients = clients_of(parties, 0.1)
    rng = np.random.default_rng(1)
    masks = (rng.random((parties, 40)) < rng.choice([0.004, 0.5, 1.0], 40)).astype(np.uint8)
    numbers = rng.normal(size=(parties, 40))
    total = add_up(
        client.propose(1, [own], [mask]) for client, own, mask in zip(clients, numbers, masks, strict=True)
    )
    for client in clients:
        client.settle(total)
    counts = masks.sum(axis=0)
    assert counts.max() == parties
    total = add_up(client.sparse_average(2, [own]) for client, own in zip(clients, numbers, strict=True))
    kept = counts >= 3
    expected = (numbers * masks).sum(axis=0)[kept] / counts[kept]
    for client in clients[:3]:
        np.testing.assert_allclose(client.open(total)[0][kept], expected, atol=0.02)
