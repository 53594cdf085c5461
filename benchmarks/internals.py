"""What benchmarks use of the fork that is not its public interface, and nothing else does.

:mod:`benchmarks.aggregator` times one party's and the server's part of a call by themselves, and
:mod:`benchmarks.channel_sides` the channel between them; :mod:`benchmarks.leaving` reads what is uploaded;
:mod:`benchmarks.training` finds the server's process by the name of its actor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from secretflow.device import PYU
from secretflow.security.aggregation import SecureAggregator
from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.joining import Session, join
from secretflow.security.aggregation.secagg.dropouts.protocol import Steps, with_survivors
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Outgoing, SurvivorServer
from secretflow.security.aggregation.secagg.dropouts.wire import ToServer, Total, Upload
from secretflow.security.aggregation.secagg.errors import ChannelClosedError
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.message import Message, add_up
from secretflow.security.aggregation.secagg.pads import Pads
from secretflow.security.aggregation.secagg.protocol import (
    Exchanges,
    agree_on_support,
    average_into,
    average_updates_into,
)
from secretflow.security.aggregation.secagg.ring import Ring, encode_padded
from secretflow.security.aggregation.secagg.rounding import rounding_key
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.server import Server
from secretflow.security.aggregation.secagg.support import Support
from secretflow.security.aggregation.secagg.transport.channel import Channel, Listener, drive
from secretflow.security.aggregation.secagg.transport.network.hub import Hub
from secretflow.security.aggregation.secagg.transport.network.stream import PartyStream
from secretflow.security.aggregation.secagg.transport.network.stream import drive as drive_stream
from secretflow.security.aggregation.secagg.updates import Sending, Updates
from secretflow.security.aggregation.secagg.weights import AggregationWeights

__all__ = [
    "SERVER_ACTOR",
    "AggregationWeights",
    "Call",
    "Channel",
    "ChannelClosedError",
    "Client",
    "Exchanges",
    "Hub",
    "Listener",
    "Message",
    "Operation",
    "Outgoing",
    "Pads",
    "PartyStream",
    "Ring",
    "Sending",
    "Server",
    "Session",
    "Steps",
    "Support",
    "SurvivingClient",
    "SurvivorRules",
    "Survivors",
    "ToServer",
    "Total",
    "Updates",
    "Upload",
    "Uploads",
    "add_up",
    "aggregators",
    "agree_on_support",
    "average_into",
    "average_updates_into",
    "drive",
    "drive_stream",
    "encode_padded",
    "join",
    "plain_clients",
    "rounding_clients",
    "rounding_key",
    "surviving_client",
    "survivor_rules",
    "watched_uploads",
    "with_survivors",
]

SERVER_ACTOR = Server.__name__
"""How the title of the server's process begins, behind Ray's own words."""


@cache
def aggregators(parties: int) -> tuple[list[Any], list[Client], Server]:
    """Upstream's maskers, our clients and our server; agreeing on keys takes upstream many seconds."""
    devices = [PYU(f"party{k:02}") for k in range(parties)]
    upstream = SecureAggregator(PYU("server"), devices)
    # The object behind a proxy in debug mode.
    maskers = [masker.data._actor_handle for masker in upstream._maskers.values()]
    return maskers, *plain_clients(parties)


def plain_clients(parties: int) -> tuple[list[Client], Server]:
    """Clients that have agreed on keys, and their server."""
    return rounding_clients(parties, None), Server()


def rounding_clients(parties: int, bits: int | None) -> list[Client]:
    """Clients that have agreed on keys, whose updates have so many bits, or None for whole numbers."""
    names = [f"party{k:02}" for k in range(parties)]
    clients = [Client(name, names, _rules(parties, bits)) for name in names]
    agree_all([client.keys for client in clients])
    return clients


def _rules(parties: int, bits: int | None = None) -> Rules:
    return Rules.make(Ring.make(32, None, parties), parties, upload_bits=bits)


def survivor_rules(parties: int) -> SurvivorRules:
    """More than half of the parties must be there."""
    return SurvivorRules.make(parties, parties // 2 + 1, _rules(parties).min_contributors)


def surviving_client(name: str, names: Sequence[str]) -> SurvivingClient:
    """A client that has not agreed on keys."""
    parties = len(names)
    return SurvivingClient(name, names, _rules(parties), survivor_rules(parties))


class Survivors:
    """Averages that end with those who are there, all in this process.

    Args:
        parties: how many begin.
        numbers: what each averages, others in each round: what was agreed to be opened with all is not
            uploaded for fewer.
    """

    def __init__(self, parties: int, numbers: Sequence[list[np.ndarray]]) -> None:
        names = [f"party{k:02}" for k in range(parties)]
        survivors = survivor_rules(parties)
        clients = [surviving_client(name, names) for name in names]
        agree_all([client.keys for client in clients])
        self._server = SurvivorServer(names, survivors)
        self._clients = dict(zip(names, clients, strict=True))
        self._numbers = dict(zip(names, numbers, strict=True))
        self._opened = {name: list(map(np.empty_like, own)) for name, own in self._numbers.items()}

    def round(self, lost: int) -> list[np.ndarray]:
        """Runs one; the last ``lost`` parties upload nothing. Returns what the first party opens."""
        there = list(self._clients)[: len(self._clients) - lost]
        steps = {}
        for name in there:
            client = self._clients[name]
            averaging = average_into(client, self._opened[name], self._numbers[name])
            steps[name] = with_survivors(client, averaging)
        said = {name: next(step) for name, step in steps.items()}
        for last in (False, False, True):
            told: Outgoing = []
            for name, message in said.items():
                assert message is not None
                told += self._server.receive(name, message)
            for name, answer in told or self._server.time_out():
                if name in steps:
                    try:
                        said[name] = steps[name].send(answer)
                    except StopIteration:
                        assert last
        return self._opened[there[0]]


@dataclass
class Uploads:
    """What parties uploaded for one average; all float numbers of a party in one row.

    Attributes:
        numbers: shape (parties, numbers).
        contributes: whether a number is in the sum, boolean of that shape.
        shares: of the total weight, of each party.
    """

    numbers: np.ndarray
    contributes: np.ndarray
    shares: np.ndarray

    def contributors(self) -> np.ndarray:
        """How many parties stand behind each number."""
        return self.contributes.sum(axis=0)

    def travels(self) -> np.ndarray:
        """Whether a number is in anybody's upload."""
        return self.contributors() > 0

    def weight(self) -> np.ndarray:
        """The sum of shares behind each number."""
        return self.shares @ self.contributes

    def average(self) -> np.ndarray:
        """What is opened; 0 for a number that does not travel."""
        weight = self.weight()
        return self.shares @ (self.numbers * self.contributes) / np.where(weight > 0, weight, 1)


@contextmanager
def watched_uploads(parties: int) -> Iterator[list[Uploads]]:
    """Takes down what clients of this process upload for averages of rounds, call by call."""
    seen: dict[int, Uploads] = {}
    rounds: list[Uploads] = []
    upload = Client.upload

    def watched(client: Client, call: Call, data: Any) -> Message:
        message = upload(client, call, data)
        if call.operation is Operation.AVERAGE and call.support is not None:
            numbers = np.concatenate([np.ravel(array) for array in data]).astype(np.float64)
            if call.number not in seen:
                shape = (parties, numbers.size)
                seen[call.number] = Uploads(np.zeros(shape), np.zeros(shape, bool), np.zeros(parties))
                rounds.append(seen[call.number])
            own = seen[call.number]
            own.numbers[client.position] = numbers
            own.contributes[client.position] = _contributed(call.support, data)
            own.shares[client.position] = 1 / parties if call.weights is None else call.weights.own
        return message

    vars_of_client: Any = Client
    vars_of_client.upload = watched
    try:
        yield rounds
    finally:
        vars_of_client.upload = upload


def _contributed(support: Support, data: Sequence[np.ndarray]) -> np.ndarray:
    places = []
    for array, index, mask in zip(data, support.layout.support, support.contributes, strict=True):
        travels = np.ones(array.size, bool) if index is None else np.isin(np.arange(array.size), index)
        places.append(travels if mask is None else travels & mask)
    return np.concatenate(places)
