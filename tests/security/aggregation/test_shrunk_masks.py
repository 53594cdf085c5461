"""Masks that only shrink are agreed on where something travels already, with the same outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secretflow as sf
from secretflow.security.aggregation.prune.errors import AggregationError
from secretflow.security.aggregation.prune.party import Sealer
from secretflow.security.aggregation.prune.payload import add_up
from secretflow.security.aggregation.prune.ring import Ring

SHAPES = [(4, 5), (7,), (3, 3)]
MaskOfParty = Sequence["np.ndarray | None"]


def agreed(sealers: list[Sealer], call: int, masks: list[MaskOfParty], shrunk: bool) -> int:
    """Has the sealers agree; returns the bytes that one of them uploaded."""
    data = [np.zeros(shape) for shape in SHAPES]
    proposals = [s.propose(call, data, mask, shrunk) for s, mask in zip(sealers, masks, strict=True)]
    total = add_up(proposals)
    for sealer in sealers:
        sealer.settle(total)
    return proposals[0]["body"][0].nbytes


def of_three(min_contributors: int) -> list[Sealer]:
    names = ["alice", "bob", "carol"]
    sealers = [Sealer(name, names, Ring.make(32, None, 3), min_contributors) for name in names]
    keys = [sealer.public_key() for sealer in sealers]
    for sealer in sealers:
        sealer.agree(*keys)
    return sealers


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), min_contributors=st.integers(1, 3), first=st.floats(0, 0.5))
def test_average_and_frame_are_those_of_a_whole_agreement(
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
        assert agreed(shrunk, call, masks, shrunk=True) == before
        data = [[rng.normal(size=shape) for shape in SHAPES] for _ in whole]
        sums = [
            add_up([s.seal(call + 1, True, True, x, 1, 2, 3) for s, x in zip(sealers, data, strict=True)])
            for sealers in (whole, shrunk)
        ]
        assert sums[0]["frame"] == sums[1]["frame"]
        for a, b, x in zip(whole, shrunk, data, strict=True):
            for left, right in zip(a.open(sums[0], x), b.open(sums[1], x), strict=True):
                np.testing.assert_array_equal(left, right)
        masks = [
            [None if entry is None else entry & (rng.random(entry.shape) < 0.7) for entry in mask]
            for mask in masks
        ]


def sizes_of(sealers: list[Sealer]) -> tuple[int, ...]:
    """Elements of each array that travel, all of them before the first agreement."""
    state = sealers[0]._sparse
    return state.frame.sizes if state else tuple(int(np.prod(shape)) for shape in SHAPES)


@pytest.mark.parametrize("grown", [[np.ones((4, 5)), None, np.zeros((3, 3))], [None, None, None]])
def test_a_mask_that_has_grown_is_refused_and_then_agreed_on_as_a_whole(grown: MaskOfParty) -> None:
    sealers = of_three(2)
    small: MaskOfParty = [np.eye(4, 5), None, np.zeros((3, 3))]
    agreed(sealers, 1, [small] * 3, shrunk=False)
    with pytest.raises(AggregationError, match="mask of alice has elements that its last one had not"):
        sealers[0].propose(2, [np.zeros(shape) for shape in SHAPES], grown, True)
    with pytest.raises(AggregationError, match="differ in frame"):  # bob has not lost his settled masks
        agreed(sealers, 3, [small] * 3, shrunk=True)
    assert agreed(sealers, 4, [small] * 3, shrunk=True) == 20 + 9


def test_the_aggregator_says_so_to_its_parties(consortium: Any) -> None:
    aggregator, held = consortium.aggregator(2), consortium.held
    data = held([np.arange(6.0), np.arange(6.0) + 2])
    proposed = []
    for mask, shrunk in (([1, 1, 1, 0, 0, 0], False), ([1, 0, 1, 0, 0, 0], True)):
        before = sf.reveal(aggregator.payload_bytes())
        masks = held([[np.array(mask)]] * 2)
        total = aggregator.sealed_average(data, prune_mask=masks, shrunk_masks=shrunk)
        for party, sealer in aggregator._sealers.items():
            opened = sf.reveal(sealer.open(total.to(party)))
            np.testing.assert_allclose(opened, mask * (np.arange(6.0) + 1), atol=1e-5)
        after = sf.reveal(aggregator.payload_bytes())
        proposed.append([after[party] - before[party] - 4 * sum(mask) for party in after])
    assert proposed == [[6, 6], [3, 3]]
