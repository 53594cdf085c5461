"""Rounds of parties whose links to the server are far and slow, with and without ``min_survivors``.

All parties are threads of this process, each with a gRPC stream through a link of its own. On the side
without the option the server adds what all have uploaded and sends the sum, over the same streams.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np

from benchmarks.internals import (
    Call,
    Client,
    Hub,
    Message,
    Operation,
    Outgoing,
    PartyStream,
    Session,
    Steps,
    SurvivingClient,
    ToServer,
    Total,
    Upload,
    add_up,
    average_into,
    drive_stream,
    join,
    plain_clients,
    surviving_client,
    survivor_rules,
    with_survivors,
)
from tests.security.aggregation.dropouts.proxy import Link, Proxy

PARTIES = 8
LINK = Link(delay=0.05, bits_per_second=20_000_000)
"""Of each party; the delay is one way."""
NAMES = [f"party{k:02}" for k in range(PARTIES)]
_PATIENCE = 300.0  # seconds


class PlainSession:
    """A server without the option: it needs all parties, and sends them the sum."""

    steps = 0
    has_ended = is_over = False
    ended = None

    def __init__(self) -> None:
        self._uploads: dict[str, Message] = {}

    def receive(self, party: str, message: ToServer) -> Outgoing:
        assert isinstance(message, Upload)
        self._uploads[party] = message.message
        if len(self._uploads) < PARTIES:
            return []
        total = Total(add_up([self._uploads.pop(name) for name in NAMES]))
        return [(name, total) for name in NAMES]

    def lose(self, _: str) -> Outgoing:
        return []

    def time_out(self) -> Outgoing:
        return []

    def take_reports(self) -> dict[str, bytes]:
        return {}


class Party(Protocol):
    """What is done over a stream."""

    def begin(self, stream: PartyStream) -> None:
        """Gets ready for rounds."""

    def round(self, stream: PartyStream) -> None:
        """Does one."""


class PlainParty:
    """A party that needs all others."""

    def __init__(self, client: Client, numbers: list[np.ndarray]) -> None:
        self._client = client
        self._numbers = numbers

    def begin(self, stream: PartyStream) -> None:
        pass

    def round(self, stream: PartyStream) -> None:
        drive_stream(self._steps(), stream, _PATIENCE)

    def _steps(self) -> Steps[None]:
        client = self._client
        answer = yield Upload(client.upload(Call(client.next_call(), Operation.AVERAGE), self._numbers))
        assert isinstance(answer, Total)
        client.open(answer.message)


class SurvivingParty:
    """A party that goes on with those who are there."""

    def __init__(self, name: str, numbers: list[np.ndarray]) -> None:
        self._name = name
        self._numbers = numbers
        self._client: SurvivingClient | None = None

    def begin(self, stream: PartyStream) -> None:
        joining = join(lambda names: surviving_client(self._name, names), self._name)
        self._client, _ = drive_stream(joining, stream, _PATIENCE)
        self._client.number_calls(1)
        self._client.transcript.begin(anew=True)

    def round(self, stream: PartyStream) -> None:
        assert self._client is not None
        self._numbers[0][0] += 1  # what was agreed to be opened with all is not uploaded for fewer
        opened = [np.empty_like(array) for array in self._numbers]
        averaging = average_into(self._client, opened, self._numbers)
        drive_stream(with_survivors(self._client, averaging), stream, _PATIENCE)


class Side:
    """Parties and their server.

    Args:
        address: of the server.
        parties: by name.
    """

    def __init__(self, address: str, parties: dict[str, Party]) -> None:
        self._parties = parties
        self._proxies = [Proxy(address, LINK) for _ in parties]
        with ThreadPoolExecutor(PARTIES) as threads:
            streams = threads.map(
                lambda name, proxy: PartyStream(proxy.address, name, "server", None, connect_seconds=60),
                parties,
                self._proxies,
            )
            self._streams = dict(zip(parties, streams, strict=True))
            list(threads.map(lambda name: parties[name].begin(self._streams[name]), parties))

    def round(self, lost: int = 0) -> float:
        """Seconds of a round; the last ``lost`` parties hang up at its beginning."""
        there, gone = NAMES[: PARTIES - lost], NAMES[PARTIES - lost :]
        with ThreadPoolExecutor(PARTIES) as threads:
            began = time.perf_counter()
            for name in gone:
                self._streams[name].close()
            list(threads.map(lambda name: self._parties[name].round(self._streams[name]), there))
            return time.perf_counter() - began

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()
        for proxy in self._proxies:
            proxy.close()


@contextmanager
def side(session: Any, parties: Sequence[Party]) -> Iterator[Side]:
    """A server that serves a session, and parties with streams to it."""
    hub = Hub("127.0.0.1:0", NAMES, session, None, round_deadline=60.0, wait=60.0)
    thread = threading.Thread(target=hub.serve, daemon=True)
    with ExitStack() as stack:
        thread.start()
        stack.callback(thread.join, 60.0)
        stack.callback(hub.stop)
        opened = Side(hub.address, dict(zip(NAMES, parties, strict=True)))
        stack.callback(opened.close)
        yield opened


def measure_link(size: int, repeats: int) -> dict[str, Any]:
    """Median seconds of a round of each side over :data:`LINK`; the first round of a side is not counted.

    Args:
        size: floats that a party uploads.
        repeats: rounds of each side that are counted.
    """
    rng = np.random.default_rng(0)
    numbers = [[rng.normal(size=size).astype(np.float32)] for _ in NAMES]
    taken: dict[str, list[float]] = {"plain": [], "none_lost": [], "third_lost": []}
    clients, _ = plain_clients(PARTIES)
    plain = list(map(PlainParty, clients, numbers))
    with side(PlainSession(), plain) as one, side(_session(), _surviving(numbers)) as other:
        for _ in range(repeats + 1):
            taken["plain"].append(one.round())
            taken["none_lost"].append(other.round())
    for _ in range(repeats):
        with side(_session(), _surviving(numbers)) as other:
            other.round()
            taken["third_lost"].append(other.round(lost=PARTIES // 3))
    seconds = {
        name: statistics.median(values[1:] if name != "third_lost" else values)
        for name, values in taken.items()
    }
    return {
        "parties": PARTIES,
        "floats": size,
        "delay_ms": 1000 * LINK.delay,
        "mbit_per_second": LINK.bits_per_second / 1e6,
        "seconds": seconds,
        "none_lost_over_plain": seconds["none_lost"] / seconds["plain"],
        "third_lost_over_plain": seconds["third_lost"] / seconds["plain"],
    }


def _session() -> Session:
    return Session(NAMES, survivor_rules(PARTIES), sums_ahead=True)


def _surviving(numbers: list[list[np.ndarray]]) -> list[SurvivingParty]:
    return list(map(SurvivingParty, NAMES, numbers))
