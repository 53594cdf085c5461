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

from secretflow.security.aggregation.secagg.call import Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.errors import AggregationError, ChannelClosedError
from secretflow.security.aggregation.secagg.message import Message
from secretflow.security.aggregation.secagg.participant import Participant
from secretflow.security.aggregation.secagg.protocol import Exchanges, combine
from secretflow.security.aggregation.secagg.server import Server
from secretflow.security.aggregation.secagg.transport.channel import Channel, Listener, drive
from tests.security.aggregation.stepwise import Stepwise

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


def message(*body: np.ndarray, call: int = 1) -> Message:
    return Message(call=call, layout="ab", encoding="sum ring=32", body=list(body))


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


class Connected:
    """Clients that have agreed on keys, each with a channel to a server."""

    def __init__(self, clients: list[Stepwise]) -> None:
        self.clients, self.server = clients, Server()
        self.connect()

    def connect(self) -> None:
        address = self.server.listen()
        self.channels = [Channel.to(address) for _ in self.clients]
        self.server.accept(len(self.clients))

    def uploads(self, call: int) -> list[Message]:
        return [client.average(call, [np.full(3, k + 1.0)]) for k, client in enumerate(self.clients)]

    def averages(self, calls: int) -> Iterator[Exchanges[list[np.ndarray]]]:
        """What each party says in several averages of the numbers 1, 2 and so on."""
        for position, client in enumerate(self.clients):
            client.number_calls(1)

            def rounds(client: Client = client, own: float = position + 1.0) -> Exchanges[list[np.ndarray]]:
                opened = []
                for _ in range(calls):
                    opened += yield from combine(client, Operation.AVERAGE, [np.full(3, own)])
                return opened

            yield rounds()

    def close(self) -> None:
        for channel in self.channels:
            channel.close()
        self.server.listen()  # hangs up
        self.server.accept(0)


@pytest.fixture
def connected(make_clients: Callable[..., list[Stepwise]]) -> Iterator[Connected]:
    ends = Connected(make_clients(2))
    yield ends
    ends.close()


@pytest.mark.parametrize(("parties", "blind", "average"), [(2, False, 1.5), (3, True, 2.0)])
def test_a_generator_of_exchanges_is_carried_over_channels(
    make_clients: Callable[..., list[Stepwise]],
    threads: ThreadPoolExecutor,
    parties: int,
    blind: bool,
    average: float,
) -> None:
    ends = Connected(make_clients(parties, blind=blind))
    serving = threads.submit(ends.server.serve, 3)
    driving = [
        threads.submit(drive, exchanges, channel)
        for exchanges, channel in zip(ends.averages(3), ends.channels, strict=True)
    ]
    for opened in driving:
        np.testing.assert_allclose(opened.result(), np.full((3, 3), average))
    assert serving.result() is None
    ends.close()


def test_a_party_that_gives_up_frees_server_and_peers_and_all_can_connect_again(
    connected: Connected, threads: ThreadPoolExecutor
) -> None:
    serving = threads.submit(connected.server.serve, 3)
    stays, leaves = connected.channels
    stays.send(connected.uploads(1)[0])
    waiting = threads.submit(stays.receive)
    leaves.close()
    for ended in (serving, waiting):
        with pytest.raises(ChannelClosedError):
            ended.result()
    connected.connect()
    serving = threads.submit(connected.server.serve, 1)
    for channel, message in zip(connected.channels, connected.uploads(2), strict=True):
        channel.send(message)
    np.testing.assert_allclose(connected.clients[0].open(connected.channels[0].receive())[0], 1.5)


def test_a_generator_that_fails_is_closed_and_so_is_one_without_a_channel(connected: Connected) -> None:
    closed = []

    def exchanges(fails: bool) -> Exchanges[None]:
        try:
            if fails:
                raise RuntimeError("the training has failed")
            yield connected.uploads(1)[0]
        finally:
            closed.append(fails)

    with pytest.raises(RuntimeError, match="the training has failed"):
        drive(exchanges(True), connected.channels[0])
    with pytest.raises(ChannelClosedError, match="no channel"):
        drive(exchanges(False), None)
    connected.channels[0].close()
    with pytest.raises(ChannelClosedError, match="has gone"):
        drive(exchanges(False), connected.channels[0])
    assert closed == [True, False]  # one that never began has nothing to close


def test_the_server_refuses_over_channels_what_does_not_belong_together(
    connected: Connected, threads: ThreadPoolExecutor
) -> None:
    serving = threads.submit(connected.server.serve, 2)
    one, other = connected.channels
    one.send(connected.uploads(1)[0])
    other.send(connected.uploads(2)[1])
    with pytest.raises(AggregationError, match="differ in call"):
        serving.result()
    with pytest.raises(ChannelClosedError):
        one.receive()


def test_a_party_on_another_machine_is_not_connected() -> None:
    assert not Participant().connect("/nowhere/socket")


def test_a_server_without_channels_says_so() -> None:
    server = Server()
    with pytest.raises(ChannelClosedError, match="no channels"):
        server.serve(1)
    address = server.listen()
    party = Participant()
    assert party.connect(address)
    server.accept(0)
    party.hang_up()
    assert not Path(address).parent.exists()
    with pytest.raises(ChannelClosedError, match="no channels"):
        server.serve(1)


def test_listening_anew_ends_the_last_listening() -> None:
    server = Server()
    first, second = server.listen(), server.listen()
    assert not Path(first).parent.exists()
    Channel.to(second).close()
    server.accept(0)


def test_a_machine_without_a_place_for_sockets_has_no_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / ("folder" * 30)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    server = Server()
    assert not Participant().connect(server.listen())
    assert not list(far.iterdir())
    server.accept(0)
