"""Masks that only shrink are agreed on where something travels already, with the same outcome."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secretflow.security.aggregation.secagg.ballot import Ballot
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.message import add_up
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules
from tests.security.aggregation.stepwise import Stepwise as Client

SHAPES = [(4, 5), (7,), (3, 3)]
MaskOfParty = Sequence["np.ndarray | None"]


def agreed(clients: list[Client], call: int, masks: list[MaskOfParty], shrunk: bool) -> int:
    """Has the clients agree; returns the bytes that one of them uploaded."""
    data = [np.zeros(shape) for shape in SHAPES]
    proposals = [
        s.propose(call, data, mask, s.support if shrunk else None)
        for s, mask in zip(clients, masks, strict=True)
    ]
    total = add_up(proposals)
    for client in clients:
        client.settle(total)
    return proposals[0]["body"][0].nbytes


def of_three(min_contributors: int) -> list[Client]:
    names = ["alice", "bob", "carol"]
    clients = [Client(name, names, Rules(Ring.make(32, None, 3), min_contributors)) for name in names]
    agree_all([client.keys for client in clients])
    return clients


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), min_contributors=st.integers(1, 3), first=st.floats(0, 0.5))
def test_average_and_layout_are_those_of_a_whole_agreement(
    seed: int, min_contributors: int, first: float
) -> None:
    rng = np.random.default_rng(seed)
    whole, shrunk = of_three(min_contributors), of_three(min_contributors)
    masks: list[list[np.ndarray | None]] = [
        [rng.random(SHAPES[0]) >= first, None, rng.random(SHAPES[2]) >= first] for _ in whole
    ]
    for call in range(1, 8, 2):
        agreed(whole, call, masks, shrunk=False)
        before = sum(size for size, mask in zip(sizes_of(shrunk), masks[0], strict=True) if mask is not None)
        first_time = shrunk[0].support is None
        said = Ballot(3, counting=first_time, leaving=True).nbytes(before)
        assert agreed(shrunk, call, masks, shrunk=True) == said
        data = [[rng.normal(size=shape) for shape in SHAPES] for _ in whole]
        sums = [
            add_up([s.sparse_average(call + 1, x, 1, 2, 3) for s, x in zip(clients, data, strict=True)])
            for clients in (whole, shrunk)
        ]
        assert sums[0]["layout"] == sums[1]["layout"]
        for a, b, x in zip(whole, shrunk, data, strict=True):
            for left, right in zip(a.open(sums[0], x), b.open(sums[1], x), strict=True):
                np.testing.assert_array_equal(left, right)
        masks = [
            [None if entry is None else entry & (rng.random(entry.shape) < 0.7) for entry in mask]
            for mask in masks
        ]


def sizes_of(clients: list[Client]) -> tuple[int, ...]:
    """Elements of each array that travel, all of them before the first agreement."""
    state = clients[0].support
    return state.layout.sizes if state else tuple(int(np.prod(shape)) for shape in SHAPES)


@pytest.mark.parametrize("grown", [[np.ones((4, 5)), None, np.zeros((3, 3))], [None, None, None]])
def test_a_mask_that_has_grown_is_refused_and_then_agreed_on_as_a_whole(grown: MaskOfParty) -> None:
    clients = of_three(2)
    small: MaskOfParty = [np.eye(4, 5), None, np.zeros((3, 3))]
    agreed(clients, 1, [small] * 3, shrunk=False)
    with pytest.raises(AggregationError, match="mask of alice has elements that its last one had not"):
        clients[0].propose(2, [np.zeros(shape) for shape in SHAPES], grown, clients[0].support)
    clients[0].support = None
    with pytest.raises(AggregationError, match="differ in layout"):  # bob has not lost his settled masks
        agreed(clients, 3, [small] * 3, shrunk=True)
    for client in clients:
        client.support = None
    # Of three parties a digit is to the base 13, eight of them in 4 bytes.
    assert agreed(clients, 4, [small] * 3, shrunk=True) == 4 * -(-(20 + 9) // 8)
