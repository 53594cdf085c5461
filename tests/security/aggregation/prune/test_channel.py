"""Channels: what goes in comes out, and whoever waits is told when the other end has gone."""

from __future__ import annotations

import json
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretflow.security.aggregation.prune.channel import Channel, Listener
from secretflow.security.aggregation.prune.errors import AggregationError, ChannelClosedError
from secretflow.security.aggregation.prune.party import Sealer
from secretflow.security.aggregation.prune.payload import Payload, add_up
from secretflow.security.aggregation.prune.server import Adder

Pair = tuple[Channel, Channel]
_LARGER_THAN_A_SOCKET_BUFFER = 1 << 20


def make_pair() -> Pair:
    listener = Listener()
    one = Channel.to(listener.address)
    other = listener.accept()
    listener.close()
    return one, other


@pytest.fixture
def pair() -> Iterator[Pair]:
    both = make_pair()
    yield both
    for end in both:
        end.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def payload(*body: np.ndarray, call: int = 1) -> Payload:
    return Payload(call=call, frame="ab", encoding="sum ring=32", body=list(body))


@given(
    st.lists(st.tuples(st.sampled_from(["|u1", "<u4", "<u8"]), st.integers(0, 50)), max_size=4),
    st.integers(0, 2**64 - 1),
    st.text(max_size=20),
)
def test_a_payload_comes_out_as_it_went_in(parts: list[tuple[str, int]], call: int, frame: str) -> None:
    one, other = make_pair()
    rng = np.random.default_rng(0)
    body = [
        rng.integers(0, 256, size * np.dtype(dtype).itemsize, np.uint8).view(dtype) for dtype, size in parts
    ]
    sent = Payload(call=call, frame=frame, encoding="é", body=body)
    one.send(sent)
    one.send(payload(call=7))
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
    sending = threads.submit(one.send, payload(big))
    np.testing.assert_array_equal(other.receive()["body"][0], big)
    sending.result()
    sending = threads.submit(other.send, payload(big + 1))
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
            other.send(payload(np.zeros(_LARGER_THAN_A_SOCKET_BUFFER, "<u4")))


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


HEADER: dict[str, Any] = {"call": 1, "frame": "ab", "encoding": "sum", "body": [["<u4", 2]]}


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
                {**HEADER, "frame": None},
                {**HEADER, "encoding": 3},
                {"call": 1, "frame": "ab", "body": []},
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
    with pytest.raises(AggregationError, match="no payload"):
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


class Connected:
    """Two sealers that have agreed on keys, and a server, over channels."""

    def __init__(self, sealers: list[Sealer]) -> None:
        self.sealers, self.adder = sealers, Adder()
        self.connect()

    def connect(self) -> None:
        address = self.adder.listen()
        assert all([sealer.connect(address) for sealer in self.sealers])
        self.adder.accept(len(self.sealers))

    def sealed(self, call: int) -> list[Payload]:
        return [
            sealer.seal(call, True, False, [np.full(3, k + 1.0)]) for k, sealer in enumerate(self.sealers)
        ]

    def send(self, call: int) -> list[Payload]:
        payloads = self.sealed(call)
        for sealer, payload in zip(self.sealers, payloads, strict=True):
            sealer.send(payload)
        return payloads

    def close(self) -> None:
        for sealer in self.sealers:
            sealer.hang_up()
        self.adder.listen()  # hangs up
        self.adder.accept(0)


@pytest.fixture
def connected(make_sealers: Callable[..., list[Sealer]]) -> Iterator[Connected]:
    ends = Connected(make_sealers(2))
    yield ends
    ends.close()


@pytest.mark.parametrize(("parties", "blind", "average"), [(2, False, 1.5), (3, True, 2.0)])
def test_the_server_sends_each_sum_back_but_the_last(
    make_sealers: Callable[..., list[Sealer]],
    threads: ThreadPoolExecutor,
    parties: int,
    blind: bool,
    average: float,
) -> None:
    ends = Connected(make_sealers(parties, blind=blind))
    serving = threads.submit(ends.adder.serve, 2)
    first = ends.send(1)
    for sealer in ends.sealers:
        total = sealer.receive()
        np.testing.assert_array_equal(total["body"][0], add_up(first)["body"][0])
        np.testing.assert_allclose(sealer.open(total)[0], average)
    ends.send(2)
    last = serving.result()
    for sealer in ends.sealers:
        np.testing.assert_allclose(sealer.open(last)[0], average)
    ends.close()


def test_a_party_that_gives_up_frees_server_and_peers_and_all_can_connect_again(
    connected: Connected, threads: ThreadPoolExecutor
) -> None:
    serving = threads.submit(connected.adder.serve, 3)
    stays, leaves = connected.sealers
    stays.send(connected.sealed(1)[0])
    waiting = threads.submit(stays.receive)
    leaves.hang_up()
    for ended in (serving, waiting):
        with pytest.raises(ChannelClosedError):
            ended.result()
    connected.connect()
    connected.send(2)
    np.testing.assert_allclose(stays.open(connected.adder.serve(1))[0], 1.5)


def test_the_server_refuses_over_channels_what_does_not_belong_together(
    connected: Connected, threads: ThreadPoolExecutor
) -> None:
    serving = threads.submit(connected.adder.serve, 2)
    one, other = connected.sealers
    one.send(connected.sealed(1)[0])
    other.send(connected.sealed(2)[1])
    with pytest.raises(AggregationError, match="differ in call"):
        serving.result()
    with pytest.raises(ChannelClosedError):
        one.receive()


def test_a_party_on_another_machine_is_not_connected(make_sealers: Callable[..., list[Sealer]]) -> None:
    sealer = make_sealers(2)[0]
    assert not sealer.connect("/nowhere/socket")
    with pytest.raises(ChannelClosedError, match="has no channel"):
        sealer.send(payload())


def test_a_server_without_channels_says_so(make_sealers: Callable[..., list[Sealer]]) -> None:
    adder = Adder()
    with pytest.raises(ChannelClosedError, match="no channels"):
        adder.serve(1)
    address = adder.listen()
    sealer = make_sealers(2)[0]
    assert sealer.connect(address)
    adder.accept(0)
    sealer.hang_up()
    assert not Path(address).parent.exists()
    with pytest.raises(ChannelClosedError, match="no channels"):
        adder.serve(1)


def test_listening_anew_ends_the_last_listening() -> None:
    adder = Adder()
    first, second = adder.listen(), adder.listen()
    assert not Path(first).parent.exists()
    Channel.to(second).close()
    adder.accept(0)


def test_a_machine_without_a_place_for_sockets_has_no_channels(
    make_sealers: Callable[..., list[Sealer]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / ("folder" * 30)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    adder = Adder()
    assert not make_sealers(2)[0].connect(adder.listen())
    assert not list(far.iterdir())
    adder.accept(0)
