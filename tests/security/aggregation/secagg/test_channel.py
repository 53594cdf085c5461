"""Channels: what goes in comes out, and whoever waits is told when the other end has gone."""

from __future__ import annotations

import json
import os
import stat
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretflow.security.aggregation.secagg.errors import AggregationError, ChannelClosedError
from secretflow.security.aggregation.secagg.message import Message
from secretflow.security.aggregation.secagg.transport.channel import Channel, Listener

from .sockets import Pair, make_pair, message

_LARGER_THAN_A_SOCKET_BUFFER = 1 << 20


@given(
    st.lists(st.tuples(st.sampled_from(["|u1", "<u4", "<u8"]), st.integers(0, 50)), max_size=4),
    st.integers(0, 2**64 - 1),
    st.text(max_size=20),
)
def test_a_payload_comes_out_as_it_went_in(parts: list[tuple[str, int]], call: int, layout: str) -> None:
    one, other = make_pair()
    rng = np.random.default_rng(0)
    body = [
        rng.integers(0, 256, size * np.dtype(dtype).itemsize, np.uint8).view(dtype) for dtype, size in parts
    ]
    sent = Message(call=call, layout=layout, encoding="é", body=body)
    one.send(sent)
    one.send(message(call=7))
    received = other.receive()
    assert {**received, "body": None} == {**sent, "body": None}
    for was, came in zip(body, received["body"], strict=True):
        assert came.dtype == was.dtype
        np.testing.assert_array_equal(came, was)
    assert other.receive()["call"] == 7, "the next message begins where this one ends"
    one.close()
    other.close()


def test_large_payloads_go_both_ways(pair: Pair, threads: ThreadPoolExecutor) -> None:
    one, other = pair
    big = np.arange(_LARGER_THAN_A_SOCKET_BUFFER, dtype="<u4")
    sending = threads.submit(one.send, message(big))
    np.testing.assert_array_equal(other.receive()["body"][0], big)
    sending.result()
    sending = threads.submit(other.send, message(big + 1))
    np.testing.assert_array_equal(one.receive()["body"][0], big + 1)
    sending.result()


def test_whoever_waits_is_told_that_the_other_end_has_gone(pair: Pair, threads: ThreadPoolExecutor) -> None:
    one, other = pair
    waiting = threads.submit(other.receive)
    one.close()
    with pytest.raises(ChannelClosedError):
        waiting.result()
    with pytest.raises(ChannelClosedError):
        for _ in range(2):  # the first may still fit into the buffer
            other.send(message(np.zeros(_LARGER_THAN_A_SOCKET_BUFFER, "<u4")))


def test_a_channel_ends_although_a_process_forked_since_has_it_open(
    pair: Pair, threads: ThreadPoolExecutor
) -> None:
    one, other = pair
    waiting = threads.submit(other.receive)
    held_by_a_child = os.dup(one._connection.fileno())
    one.close()
    try:
        with pytest.raises(ChannelClosedError):
            waiting.result(timeout=10)
    finally:
        os.close(held_by_a_child)


HEADER: dict[str, Any] = {"call": 1, "layout": "ab", "encoding": "sum", "body": [["<u4", 2]]}


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"\xff",
        b"[]",
        *(
            json.dumps(fields).encode()
            for fields in (
                {**HEADER, "call": "1"},
                {**HEADER, "layout": None},
                {**HEADER, "encoding": 3},
                {"call": 1, "layout": "ab", "body": []},
                {**HEADER, "body": 5},
                {**HEADER, "body": [["<u4"]]},
                {**HEADER, "body": [["|O", 1]]},
                {**HEADER, "body": [["<f8", 1]]},
                {**HEADER, "body": [["<u4", -1]]},
                {**HEADER, "body": [["<u4", 1.0]]},
                {**HEADER, "body": [["<u4", 10**15]]},
            )
        ),
    ],
)
def test_what_is_no_payload_is_refused(pair: Pair, header: bytes) -> None:
    one, other = pair
    one._connection.sendall(struct.pack("!I", len(header)) + header)
    with pytest.raises(AggregationError, match="no message"):
        other.receive()


def test_a_header_of_any_length_is_not_waited_for(pair: Pair) -> None:
    one, other = pair
    one._connection.sendall(struct.pack("!I", 1 << 30))
    with pytest.raises(AggregationError, match="header of 1073741824 bytes"):
        other.receive()


@pytest.mark.parametrize("sent", [2, 10, -1])
def test_a_payload_that_breaks_off_is_none(pair: Pair, sent: int) -> None:
    one, other = pair
    header = json.dumps(HEADER).encode()
    whole = struct.pack("!I", len(header)) + header + bytes(8)
    one._connection.sendall(whole[:sent])
    one.close()
    with pytest.raises(ChannelClosedError):
        other.receive()


def test_only_this_user_can_reach_a_listener_and_nobody_once_it_is_closed() -> None:
    listener = Listener()
    folder = Path(listener.address).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    listener.close()
    assert not folder.exists()
    with pytest.raises(OSError):
        Channel.to(listener.address)
