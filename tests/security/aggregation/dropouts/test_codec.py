"""Bytes from elsewhere are a message or an error."""

from __future__ import annotations

import dataclasses
import json
import struct

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from secretflow.security.aggregation.secagg.dropouts.codec import decode_at_party, decode_at_server, encode
from secretflow.security.aggregation.secagg.dropouts.wire import (
    Again,
    Announcement,
    Bye,
    Codes,
    Declined,
    Dropped,
    Ended,
    Hello,
    Letters,
    Lost,
    Members,
    PaddedHalf,
    PadKeys,
    Regroup,
    Release,
    Report,
    Reports,
    ToParty,
    Total,
    Upload,
)
from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.message import Message

MESSAGE = Message(
    call=2**63 + 5,
    layout="ab12",
    encoding="average ring=32",
    body=[np.arange(5, dtype="<u4"), np.arange(3, dtype="<u8"), np.arange(2, dtype="|u1")],
)
TO_SERVER = [
    Upload(MESSAGE),
    Codes(7, {"bob": b"\x00" * 32, "zoë": b"\xff" * 32}),
    Declined(7),
    Release(7, b"s" * 32, True, {"carol": b"k" * 32}),
    Hello(0, 7, 6),
    Letters({"bob": b"l" * 32}),
    Report(7, b"r" * 3000),
    Bye(),
]
TO_PARTY = [
    Announcement(7, ("alice", "bob")),
    Codes(7, {}),
    Again(7, ("bob",)),
    Total(MESSAGE, b"sealed", True),
    Lost(7, ()),
    Dropped(0),
    Ended(7, "gone: carol", True),
    Members(("alice", "bob"), 0, ("bob",), 7),
    Regroup(),
    Reports(7, {"alice": b"", "zoë": b"r" * 3000}),
    PaddedHalf(MESSAGE),
    PadKeys(7, ((b"k" * 32, True), (b"s" * 32, False)), b"sealed", True),
    PadKeys(7, ()),
]


def fields_of(message: object) -> object:
    """What can be compared."""
    if isinstance(message, (Upload, PaddedHalf, Total)):
        held = message.message
        body = [(part.dtype.str, part.tolist()) for part in held["body"]]
        more = [getattr(message, name, None) for name in ("sealed", "comers")]
        return type(message), {**held, "body": body}, more
    if isinstance(message, (Report, Reports, PadKeys)):
        return type(message), vars(message)
    return message


@pytest.mark.parametrize("message", TO_SERVER, ids=lambda m: type(m).__name__)
def test_what_a_party_sends_arrives(message: object) -> None:
    assert fields_of(decode_at_server(encode(message))) == fields_of(message)  # type: ignore[arg-type]


@pytest.mark.parametrize("message", TO_PARTY, ids=lambda m: type(m).__name__)
def test_what_the_server_sends_arrives(message: object) -> None:
    assert fields_of(decode_at_party(encode(message))) == fields_of(message)  # type: ignore[arg-type]


def test_the_server_takes_nothing_that_only_it_may_say() -> None:
    with pytest.raises(AggregationError, match="no message"):
        decode_at_server(encode(Total(MESSAGE)))


def test_a_message_of_the_protocol_shows_no_secret() -> None:
    for message in (TO_SERVER[1], TO_SERVER[3], TO_PARTY[3], TO_PARTY[11]):
        for text in ("73737373", "ssss", "kkkk", "sealed'"):
            assert text not in repr(message)
    assert {f.name for f in dataclasses.fields(Release) if not f.repr} == {"seed", "keys"}


@given(st.sampled_from(TO_SERVER + TO_PARTY), st.data())
def test_changed_bytes_are_a_message_or_an_error(message: object, data: st.DataObject) -> None:
    whole = bytearray(encode(message))  # type: ignore[arg-type]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for decode in (decode_at_server, decode_at_party):
        try:
            decode(cut)
        except AggregationError as error:
            assert len(str(error)) < 300


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Unheard"},
        {"call": -1},
        {"call": True},
        {"call": 2**64},
        {"call": "7"},
        {"keys": {"carol": "zz"}},
        {"keys": ["carol"]},
        {"seed": "00" * 2000},
        {"sealed": 1},
        {"more": 1},
    ],
    ids=str,
)
def test_a_header_that_is_not_what_it_must_be_is_refused(change: dict[str, object]) -> None:
    whole = encode(TO_SERVER[3])
    header = json.loads(whole[4:])
    text = json.dumps({**header, **change}).encode()
    with pytest.raises(AggregationError, match="no message"):
        decode_at_server(struct.pack("!I", len(text)) + text)


@pytest.mark.parametrize(
    "subtracted", [[True], [True] * 3, [1, 0], [True, None], {"0": True, "1": True}, 2, "ab"], ids=str
)
def test_keys_of_pads_have_32_bytes_and_a_sign_each(subtracted: object) -> None:
    whole = encode(TO_PARTY[11])
    (length,) = struct.unpack_from("!I", whole)
    text = json.dumps({**json.loads(whole[4 : 4 + length]), "subtracted": subtracted}).encode()
    with pytest.raises(AggregationError, match="no message"):
        decode_at_party(struct.pack("!I", len(text)) + text + whole[4 + length :])


@pytest.mark.parametrize(
    "message",
    [
        Ended(7, "over\nalice: all is well", False),
        Ended(7, "\x1b[2J", True),
        Members(("alice", "bob\rcarol")),
        Lost(7, ("alice\u202e",)),
    ],
    ids=repr,
)
def test_a_server_writes_no_lines_of_its_own_into_a_partys_log(message: ToParty) -> None:
    with pytest.raises(AggregationError, match="no message"):
        decode_at_party(encode(message))


@pytest.mark.parametrize(
    "body", [[["<u4", 2**40]], [["<f4", 5]], [["|O", 1]], [["<u4", -1]], [["<u4", 4]], 5]
)
def test_a_body_of_other_bytes_than_it_says_is_refused(body: object) -> None:
    whole = encode(TO_SERVER[0])
    (length,) = struct.unpack_from("!I", whole)
    text = json.dumps({**json.loads(whole[4 : 4 + length]), "body": body}).encode()
    with pytest.raises(AggregationError, match="no message"):
        decode_at_server(struct.pack("!I", len(text)) + text + whole[4 + length :])


def test_a_pickle_is_refused() -> None:
    with pytest.raises(AggregationError, match="no message"):
        decode_at_server(b"cos\nsystem\n(S'true'\ntR.")
