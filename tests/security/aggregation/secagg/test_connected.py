"""The protocol over channels: exchanges are carried, and whoever fails frees the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from secretflow.device.tenants import Tenant
from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.errors import AggregationError, ChannelClosedError
from secretflow.security.aggregation.secagg.message import Message
from secretflow.security.aggregation.secagg.participant import Participant
from secretflow.security.aggregation.secagg.protocol import Exchanges
from secretflow.security.aggregation.secagg.server import Server
from secretflow.security.aggregation.secagg.transport.channel import Channel, drive
from secretflow.security.aggregation.secagg.transport.processes import connect, hang_up
from tests.security.aggregation.stepwise import Stepwise


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
                    call = Call(client.next_call(), Operation.AVERAGE)
                    opened += client.open((yield client.upload(call, [np.full(3, own)])))
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
    serving = threads.submit(ends.server.serve, 3, parties)
    driving = [
        threads.submit(drive, [exchanges], channel)
        for exchanges, channel in zip(ends.averages(3), ends.channels, strict=True)
    ]
    for opened in driving:
        np.testing.assert_allclose(opened.result()[0], np.full((3, 3), average))
    assert serving.result() is None
    ends.close()


def test_a_party_that_gives_up_frees_server_and_peers_and_all_can_connect_again(
    connected: Connected, threads: ThreadPoolExecutor
) -> None:
    serving = threads.submit(connected.server.serve, 3, 2)
    stays, leaves = connected.channels
    stays.send(connected.uploads(1)[0])
    waiting = threads.submit(stays.receive)
    leaves.close()
    for ended in (serving, waiting):
        with pytest.raises(ChannelClosedError):
            ended.result()
    connected.connect()
    serving = threads.submit(connected.server.serve, 1, 2)
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
        drive([exchanges(True)], connected.channels[0])
    with pytest.raises(ChannelClosedError, match="no channel"):
        drive([exchanges(False)], None)
    connected.channels[0].close()
    with pytest.raises(ChannelClosedError, match="has gone"):
        drive([exchanges(False)], connected.channels[0])
    assert closed == [True, False]  # one that never began has nothing to close


def test_the_server_refuses_over_channels_what_does_not_belong_together(
    connected: Connected, threads: ThreadPoolExecutor
) -> None:
    serving = threads.submit(connected.server.serve, 2, 2)
    one, other = connected.channels
    one.send(connected.uploads(1)[0])
    other.send(connected.uploads(2)[1])
    with pytest.raises(AggregationError, match="differ in call"):
        serving.result()
    with pytest.raises(ChannelClosedError):
        one.receive()


def test_a_party_on_another_machine_is_not_connected() -> None:
    assert not connect([Tenant(Participant())], "/nowhere/socket")


def test_a_server_without_channels_says_so() -> None:
    server = Server()
    with pytest.raises(ChannelClosedError, match="no channels"):
        server.serve(1, 1)
    address = server.listen()
    party = Tenant(Participant())
    assert connect([party], address)
    server.accept(0)
    hang_up([party])
    assert not Path(address).parent.exists()
    with pytest.raises(ChannelClosedError, match="no channels"):
        server.serve(1, 1)


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
    assert not connect([Tenant(Participant())], server.listen())
    assert not list(far.iterdir())
    server.accept(0)


def test_a_party_that_dies_with_a_child_frees_the_server(threads: ThreadPoolExecutor) -> None:
    """The child has the party's sockets, and lives on."""
    server = Server()
    address = server.listen()
    program = (
        "import os, sys, time\n"
        "from secretflow.security.aggregation.secagg.transport.channel import Channel\n"
        f"channel = Channel.to({address!r})\n"
        "if os.fork() == 0:\n"
        "    print('child', flush=True)\n"
        "    time.sleep(600)\n"
        "os.read(0, 1)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    party = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        server.accept(1)
        assert party.stdout and party.stdin and party.stdout.readline() == b"child\n"
        serving = threads.submit(server.serve, 1, 1)
        party.stdin.write(b"x")
        party.stdin.flush()
        with pytest.raises(ChannelClosedError):
            serving.result(timeout=60)
    finally:
        os.killpg(party.pid, signal.SIGKILL)
        party.wait()
