"""Sums that travel while the parties agree: closed until all have released, and then those of a total."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.secagg.dropouts.ahead import SumAhead, halves
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Step, SurvivorServer
from secretflow.security.aggregation.secagg.dropouts.wire import (
    Again,
    Announcement,
    Codes,
    Dropped,
    Ended,
    PaddedHalf,
    PadKeys,
    Release,
    ToParty,
    ToServer,
    Total,
    Upload,
)
from secretflow.security.aggregation.secagg.errors import AggregationError, DisagreementError
from secretflow.security.aggregation.secagg.keys import wrap
from secretflow.security.aggregation.secagg.message import Message, add_up, take_pads_off

from .parties import clients_of, names_of, steps
from .test_survivors import Run

NAMES = names_of(4)
RULES = SurvivorRules.make(4, 3, 2)
BODY = [np.arange(7, dtype="<u4"), np.arange(4, dtype="<u8"), np.zeros(0, "|u1")]
OWN = Message(call=3, layout="ab12", encoding="sum ring=32", body=BODY)


def told_to(run: Run, name: str) -> list[ToParty]:
    """What the server has said to a party in the first call."""
    return [message for to, message in run.network.told if to == name and message.call == 1]


def padded_sum(told: Iterable[ToParty]) -> Message:
    """The sum as it has come, a copy."""
    first, second = (message.message for message in told if isinstance(message, PaddedHalf))
    body = [np.concatenate(parts) for parts in zip(first["body"], second["body"], strict=True)]
    return {**first, "body": body}


def elements(total: Message) -> np.ndarray:
    return np.concatenate([part.astype(np.uint64) for part in total["body"]])


@pytest.mark.parametrize("lost", [0, 10])
@pytest.mark.parametrize("blind", [False, True])
def test_what_the_parties_open_has_the_bits_of_what_the_server_opens(blind: bool, lost: int) -> None:
    runs = [Run(32, blind=blind, sums_ahead=sums_ahead) for sums_ahead in (False, True)]
    for run in runs:
        run.until(Step.ANSWERS)
        for name in run.names[::3][:lost]:
            run.network.cut(name)
        run.network.drain()
    kinds = [{type(message) for _, message in run.network.told} for run in runs]
    assert PadKeys in kinds[1] and Total not in kinds[1] and Total in kinds[0] and PadKeys not in kinds[0]
    for name in runs[0].names:
        of_server, of_party = (run.outcomes[name] for run in runs)
        assert len(of_server) == len(of_party) == (0 if name in runs[0].names[::3][:lost] else 2)
        for one, other in zip(of_server, of_party, strict=True):
            assert one.survivors == other.survivors
            for mine, expected in zip(other.average, one.average, strict=True):
                np.testing.assert_array_equal(mine, expected)


def test_before_all_have_released_nothing_of_a_sum_can_be_told() -> None:
    run = Run(4, rounds=1, sums_ahead=True)
    run.until(Step.RELEASES)
    assert not any(isinstance(message, Release) for _, message in run.network.said)
    padded = padded_sum(told_to(run, NAMES[0]))
    run.network.drain()
    run.check(0, NAMES)
    uploads = [message.message for _, message in run.network.said if isinstance(message, Upload)]
    assert np.array_equal(elements(padded), elements(add_up(uploads)))
    keys = [(message.seed, True) for _, message in run.network.said if isinstance(message, Release)]
    total = padded_sum(told_to(run, NAMES[0]))
    take_pads_off(total, keys)
    for missing in range(4):
        partly = padded_sum(told_to(run, NAMES[0]))
        take_pads_off(partly, [*keys[:missing], *keys[missing + 1 :]])
        assert not np.any(elements(partly) == elements(total))


def test_each_half_hides_one_exchange() -> None:
    """The codes need not wait for all of the sum, and nothing of it is waited for before them."""
    run = Run(4, rounds=1, sums_ahead=True)
    run.network.drain()
    for name in NAMES:
        told = told_to(run, name)
        assert list(map(type, told)) == [Announcement, PaddedHalf, Codes, PaddedHalf, PadKeys]
        first, second = (message.message["body"] for message in told if isinstance(message, PaddedHalf))
        assert all(abs(one.size - other.size) <= 1 for one, other in zip(first, second, strict=True))


def test_a_party_that_was_too_slow_is_sent_neither_the_sum_nor_keys() -> None:
    run = Run(4, sums_ahead=True)
    run.network.up[NAMES[3]].clear()
    for name in NAMES[:3]:
        run.network.deliver_up(name)
    run.network.time_out()
    run.network.drain()
    run.check(0, NAMES[:3])
    assert list(map(type, (m for to, m in run.network.told if to == NAMES[3]))) == [Dropped]
    keys = next(message for message in told_to(run, NAMES[0]) if isinstance(message, PadKeys))
    assert len(keys.keys) == 3 + 3  # the pads of three, and those shared with the fourth


@pytest.mark.parametrize("blind", [False, True])
def test_the_seed_that_blinds_the_server_comes_sealed(blind: bool) -> None:
    run = Run(4, rounds=1, blind=blind, sums_ahead=True)
    run.network.drain()
    run.check(0, NAMES)
    keys = next(message for message in told_to(run, NAMES[1]) if isinstance(message, PadKeys))
    assert len(keys.keys) == (3 if blind else 4) and bool(keys.sealed) is blind


def test_parties_that_were_sent_different_sums_open_nothing_in_the_next_call() -> None:
    run = Run(4, sums_ahead=True)
    run.until(Step.ANSWERS)
    down = run.network.down[NAMES[0]]
    half = down.pop()
    assert isinstance(half, PaddedHalf)
    noisy = [part.copy() for part in half.message["body"]]
    noisy[0][0] += 1
    down.append(PaddedHalf({**half.message, "body": noisy}))
    run.network.drain()
    assert all(len(run.outcomes[name]) == 1 for name in NAMES)
    assert any(isinstance(error, DisagreementError) for error in run.network.ended.values())
    assert None not in run.network.ended.values()


@pytest.mark.parametrize("seed", [b"", b"s" * 16, b"s" * 33])
def test_a_sealed_seed_that_is_none_is_refused(seed: bytes) -> None:
    first, other = (client.keys for client in clients_of(NAMES, RULES, blind=True)[:2])
    for keys in (first, other):
        keys.pads(1)
        keys.release([], seal=keys is first)
    sealed = wrap(first._sealing_key(NAMES[0]), seed)
    with pytest.raises(AggregationError, match=f"was not sealed by {NAMES[0]}"):
        other.unseal(1, NAMES[0], sealed)


@pytest.mark.parametrize("key", [b"", b"k" * 16, b"k" * 33])
def test_a_key_that_is_none_ends_the_calls_and_reaches_nobody(key: bytes) -> None:
    server = at_releases()
    told = [answer for name in NAMES for answer in server.receive(name, Release(1, key, False, {}))]
    assert {type(answer) for _, answer in told} == {Ended}


def test_keys_of_who_has_not_dropped_out_are_passed_on_to_nobody() -> None:
    server, keys = at_releases(), dict.fromkeys([*NAMES, "mallory"], b"k" * 32)
    told = [answer for name in NAMES for answer in server.receive(name, Release(1, b"s" * 32, False, keys))]
    for _, answer in told:
        assert isinstance(answer, PadKeys) and set(answer.keys) == {(b"s" * 32, True)}


def at_releases() -> SurvivorServer:
    """A server to which all have said all but what takes the pads off."""
    server = SurvivorServer(NAMES, RULES, sums_ahead=True)
    for said in (Upload({**OWN, "call": 1}), Codes(1, {})):
        for name in NAMES:
            server.receive(name, said)
    assert server.step is Step.RELEASES
    return server


def changed(message: Message, **fields: Any) -> PaddedHalf:
    return PaddedHalf({**message, **fields})  # type: ignore[typeddict-item]


FIRST, SECOND = (half.message for half in halves(OWN))
TOO_LONG = [np.append(FIRST["body"][0], 1).astype("<u4"), *FIRST["body"][1:]]


@pytest.mark.parametrize(
    "half",
    [
        changed(OWN),
        changed(SECOND),
        changed(FIRST, layout="ab13"),
        changed(FIRST, encoding="average ring=32"),
        changed(FIRST, body=TOO_LONG),
        changed(FIRST, body=[FIRST["body"][0].view("<u2"), *FIRST["body"][1:]]),
        changed(FIRST, body=FIRST["body"][:2]),
        changed(FIRST, body=[*FIRST["body"], np.zeros(0, "<u4")]),
    ],
    ids=["whole", "second", "layout", "encoding", "longer", "dtype", "fewer arrays", "more arrays"],
)
def test_a_half_that_is_none_of_what_was_uploaded_is_refused(half: PaddedHalf) -> None:
    with pytest.raises(AggregationError, match="must send the two halves of a sum"):
        SumAhead(OWN, 4).takes(half)


def test_no_more_is_kept_than_one_sum() -> None:
    ahead = SumAhead(OWN, 4)
    assert ahead.takes(PaddedHalf(FIRST)) and ahead.takes(PaddedHalf(SECOND))
    for half in (FIRST, SECOND):
        with pytest.raises(AggregationError, match="in place of half 3"):
            ahead.takes(PaddedHalf(half))


def test_keys_that_are_of_another_call_too_early_none_or_too_many_are_refused() -> None:
    ahead, keys = SumAhead(OWN, 1), PadKeys(3, [(b"k" * 32, True)])
    for half in (FIRST, SECOND):
        with pytest.raises(AggregationError, match="must come before what takes its pads off"):
            ahead.opened(keys)
        assert ahead.takes(PaddedHalf(half))
    for call in (2, 4):
        assert not ahead.takes(changed(FIRST, call=call))
        with pytest.raises(AggregationError, match=f"the sum of call {call} must come before"):
            ahead.opened(replace(keys, call=call))
    for count in (0, 2):
        with pytest.raises(AggregationError, match=f"1 to 1 pads must be on a sum, got {count}"):
            ahead.opened(replace(keys, keys=[*keys.keys] * count))
    assert ahead.opened(keys).message["layout"] == OWN["layout"]


def agreed(call: int, running: dict[str, Steps[None]], there: Sequence[str]) -> dict[str, Codes]:
    """Codes for each of those who were told of one set."""
    said = {name: running[name].send(Announcement(call, tuple(there))) for name in there}
    assert all(isinstance(answer, Codes) for answer in said.values())
    return {
        name: Codes(call, {by: said[by].codes[name] for by in there if by != name})  # type: ignore[union-attr]
        for name in there
    }


def begun() -> tuple[dict[str, Steps[None]], dict[str, ToServer | None]]:
    clients = clients_of(NAMES, RULES)
    running = {name: steps(client, name, 2, False, []) for name, client in zip(NAMES, clients, strict=True)}
    return running, {name: next(step) for name, step in running.items()}


def message_of(said: ToServer | None) -> Message:
    assert isinstance(said, Upload)
    return said.message


def test_the_sum_of_a_call_that_was_given_up_is_forgotten() -> None:
    running, uploads = begun()
    agreed(1, running, NAMES)
    one, there = running[NAMES[0]], NAMES[:3]
    first, second = halves(message_of(uploads[NAMES[0]]))
    assert one.send(first) is None
    again = {name: running[name].send(Again(1, tuple(there))) for name in there}
    assert message_of(again[NAMES[0]])["call"] == 2
    codes = agreed(2, running, there)
    assert one.send(second) is None  # it is late, and of no use
    assert isinstance(one.send(codes[NAMES[0]]), Release)
    assert one.send(halves(message_of(again[NAMES[0]]))[0]) is None
    with pytest.raises(AggregationError, match="got 1 halves of that of call 2"):
        one.send(PadKeys(2, ()))


@pytest.mark.parametrize("kind", [PaddedHalf, PadKeys])
def test_what_is_of_a_later_call_is_out_of_turn(kind: type[ToParty]) -> None:
    running, uploads = begun()
    agreed(1, running, NAMES)
    later: Message = {**message_of(uploads[NAMES[0]]), "call": 2}
    with pytest.raises(AggregationError, match="of call 2 out of its turn"):
        running[NAMES[0]].send(halves(later)[0] if kind is PaddedHalf else PadKeys(2, ()))


def test_keys_before_the_agreement_open_nothing() -> None:
    running, uploads = begun()
    agreed(1, running, NAMES)
    for half in halves(message_of(uploads[NAMES[0]])):
        assert running[NAMES[0]].send(half) is None
    with pytest.raises(AggregationError, match="has sent padkeys of call 1 out of its turn"):
        running[NAMES[0]].send(PadKeys(1, ()))
