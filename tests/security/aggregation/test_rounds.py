"""A pad is never used twice, and a lost, repeated or mixed-up round is an error or right, never wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import secretflow as sf
from secretflow.security.aggregation.prune import party as party_module
from secretflow.security.aggregation.prune.errors import AggregationError
from secretflow.security.aggregation.prune.pads import Pads
from secretflow.security.aggregation.prune.party import Sealer
from secretflow.security.aggregation.prune.payload import add_up

MakeSealers = Callable[..., list[Sealer]]
VALUES = [np.array([1.0, 2.0, 3.0]), np.array([3.0, 4.0, 8.0]), np.array([2.0, 3.0, 1.0])]
AVERAGE = [2.0, 3.0, 4.0]


def uploads(sealers: list[Sealer], call: int, data: list[Any] | None = None) -> list[Any]:
    values = VALUES if data is None else data
    return [sealer.seal(call, True, False, x) for sealer, x in zip(sealers, values, strict=True)]


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

    monkeypatch.setattr(party_module, "Pads", Recorded)
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


def test_the_same_numbers_look_new_in_every_call(make_sealers: MakeSealers) -> None:
    sealer = make_sealers(2)[0]
    bodies = [sealer.seal(call, True, False, np.zeros(64))["body"][0] for call in range(1, 20)]
    words = np.concatenate([body.view("<u8") for body in bodies])
    assert len(np.unique(words)) == words.size


@pytest.mark.parametrize("call", [4, 5])
def test_a_party_refuses_a_call_number_it_has_seen_or_passed(make_sealers: MakeSealers, call: int) -> None:
    sealers = make_sealers(3)
    uploads(sealers, 5)
    for act in (
        lambda: sealers[0].seal(call, True, False, VALUES[0]),
        lambda: sealers[0].seal(call, False, False, VALUES[0]),
        lambda: sealers[0].propose(call, VALUES[0], [np.ones(3)]),
    ):
        with pytest.raises(
            AggregationError, match=rf"call {call} is not larger than the last one of alice, 5"
        ):
            act()
    payloads = uploads(sealers, 6)
    np.testing.assert_allclose(sealers[0].open(add_up(payloads)), AVERAGE, atol=1e-5)


def test_skipped_call_numbers_do_no_harm(make_sealers: MakeSealers) -> None:
    sealers = make_sealers(3)
    sealers[1].seal(3, True, False, VALUES[1])
    total = add_up(uploads(sealers, 9))
    np.testing.assert_allclose(sealers[2].open(total), AVERAGE, atol=1e-5)


def test_nothing_is_uploaded_before_keys_are_agreed(make_sealers: MakeSealers) -> None:
    ready = make_sealers(2)[0]
    fresh = Sealer("alice", ["alice", "bob"], ready._ring, 1)
    with pytest.raises(AggregationError, match="not agreed on keys"):
        fresh.seal(1, True, False, VALUES[0])
    with pytest.raises(AggregationError, match="not agreed on keys"):
        fresh.propose(1, VALUES[0], [np.ones(3)])


def test_a_party_opens_the_sum_of_the_call_it_sealed_and_that_once(make_sealers: MakeSealers) -> None:
    sealers = make_sealers(3)
    first = add_up(uploads(sealers, 1))
    second = add_up(uploads(sealers, 2))
    with pytest.raises(AggregationError, match="expected the sum of call 2, got that of call 1"):
        sealers[0].open(first)
    np.testing.assert_allclose(sealers[1].open(second), AVERAGE, atol=1e-5)
    for sealer in sealers[:2]:
        with pytest.raises(AggregationError, match="nothing was sealed"):
            sealer.open(second)


@pytest.mark.parametrize("transposed", [False, True])
def test_an_average_opened_into_arrays_leaves_what_did_not_travel(
    make_sealers: MakeSealers, transposed: bool
) -> None:
    sealers = make_sealers(2)
    rng = np.random.default_rng(5)
    matrices = [rng.normal(size=(4, 6)).astype(np.float32) for _ in sealers]
    data = [
        [matrix.T if transposed else matrix, np.array(k + 3), np.array([1.5 * k])]
        for k, matrix in enumerate(matrices)
    ]
    masks = [[rng.integers(0, 2, size=array[0].shape), None, None] for array in data]
    total = add_up([s.propose(1, x, m) for s, x, m in zip(sealers, data, masks, strict=True)])
    for sealer in sealers:
        sealer.settle(total)
    total = add_up([s.seal(2, True, True, x) for s, x in zip(sealers, data, strict=True)])
    arrays = [np.full_like(data[0][0], 7.0), np.array(0), np.array([0.0])]
    if transposed:
        arrays[0] = np.full((4, 6), 7.0, np.float32).T
        assert not arrays[0].flags.c_contiguous
    before = [array.copy() for array in arrays]
    with pytest.raises(AggregationError, match="got that of call 1"):
        sealers[1].open_into({**total, "call": 1}, arrays)
    np.testing.assert_equal(arrays, before)
    sealers[0].open_into(total, arrays)
    both = (masks[0][0] == 1) & (masks[1][0] == 1)
    expected = np.where(both, (data[0][0] + data[1][0]) / 2, 7.0)
    np.testing.assert_allclose(arrays[0], expected, atol=1e-5)
    assert arrays[1] == 3  # of 3.5; a counter stays a whole number
    np.testing.assert_allclose(arrays[2], [0.75], atol=1e-5)


def test_counts_of_an_earlier_agreement_are_refused(make_sealers: MakeSealers) -> None:
    sealers = make_sealers(2)
    earlier = add_up([sealer.propose(1, VALUES[0], [np.ones(3)]) for sealer in sealers])
    later = add_up([sealer.propose(2, VALUES[0], [np.array([1, 0, 1])]) for sealer in sealers])
    with pytest.raises(AggregationError, match="counts are those of another"):
        sealers[0].settle(earlier)
    sealers[0].settle(later)
    with pytest.raises(AggregationError, match="must be proposed"):
        sealers[0].settle(later)


def test_payloads_of_different_calls_inputs_or_encodings_are_not_added(make_sealers: MakeSealers) -> None:
    one, two, three = make_sealers(3)
    call = 0

    def refused(field: str, act: Callable[[Sealer], Any], other: Callable[[Sealer], Any]) -> None:
        with pytest.raises(AggregationError, match=f"differ in {field}"):
            add_up([act(one), act(two), other(three)])

    zeros = np.zeros((2, 3), "f4")
    for field, mine, theirs in (
        ("frame", (True, False, zeros), (True, False, zeros.T)),
        ("frame", (True, False, zeros), (True, False, zeros.astype("f8"))),
        ("frame", (True, False, zeros), (True, False, [zeros])),
        ("frame", (True, False, [zeros, zeros]), (True, False, [zeros])),
        ("encoding", (True, False, zeros), (False, False, zeros)),
        ("encoding", (True, False, zeros, 1, 1, 1), (True, False, zeros, 1.0, 1, 1)),
    ):
        call += 1
        refused(field, lambda s, m=mine: s.seal(call, *m), lambda s, t=theirs: s.seal(call, *t))  # noqa: B023
    call += 1
    refused(
        "call", lambda s: s.seal(call, True, False, zeros), lambda s: s.seal(call + 1, True, False, zeros)
    )
    call += 2
    refused(
        "encoding",
        lambda s: s.propose(call, zeros, [np.ones((2, 3))]),
        lambda s: s.propose(call, zeros, [None]),
    )


def test_parties_of_another_ring_or_other_masks_are_not_added(make_sealers: MakeSealers) -> None:
    narrow, wide = make_sealers(2, ring_bits=32), make_sealers(2, ring_bits=64)
    with pytest.raises(AggregationError, match="differ in encoding"):
        add_up([narrow[0].seal(1, True, False, VALUES[0]), wide[1].seal(1, True, False, VALUES[1])])
    settled = []
    for mask in ([1, 1, 0], [1, 0, 1]):
        sealers = make_sealers(2, at_least=1)
        total = add_up([sealer.propose(1, VALUES[0], [np.array(mask)]) for sealer in sealers])
        for sealer in sealers:
            sealer.settle(total)
        settled.append(sealers)
    with pytest.raises(AggregationError, match="differ in frame"):
        add_up([settled[0][0].seal(2, True, True, VALUES[0]), settled[1][1].seal(2, True, True, VALUES[1])])


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
def test_after_a_lost_agreement_about_masks_the_old_ones_are_not_used(
    make_sealers: MakeSealers, failing: int
) -> None:
    """As Ray runs it: the caller does not see the error, and goes on with masks that were never settled."""
    sealers = make_sealers(3)
    old = add_up([s.propose(1, x, [np.array([1, 1, 0])]) for s, x in zip(sealers, VALUES, strict=True)])
    for sealer in sealers:
        sealer.settle(old)
    for position, sealer in enumerate(sealers):
        if position == failing:
            with pytest.raises(AggregationError):
                sealer.propose(2, VALUES[position], [np.ones(7)])
        else:
            sealer.propose(2, VALUES[position], [np.array([0, 1, 1])])
    # The sum never came about, so nobody has settled anything.
    for sealer, x in zip(sealers, VALUES, strict=True):
        with pytest.raises(AggregationError, match=r"have not settled masks.*give new mask objects"):
            sealer.seal(3, True, True, x)
    new = add_up([s.propose(4, x, [np.array([0, 1, 1])]) for s, x in zip(sealers, VALUES, strict=True)])
    for sealer in sealers:
        sealer.settle(new)
    total = add_up([s.seal(5, True, True, x) for s, x in zip(sealers, VALUES, strict=True)])
    for sealer in sealers:
        np.testing.assert_allclose(sealer.open(total), [0.0, 3.0, 4.0], atol=1e-5)


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
    with pytest.raises(AggregationError, match="differ in frame"):
        sf.reveal(aggregator.average_at_parties(data, prune_mask=others, same_mask=True))
    assert_average(aggregator, data)
