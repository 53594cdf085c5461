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
from secretflow.security.aggregation.secagg.errors import ChannelClosedError
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.message import Message
from secretflow.security.aggregation.secagg.pads import Pads
from secretflow.security.aggregation.secagg.ring import Ring, encode_padded
from secretflow.security.aggregation.secagg.rules import Rules
from secretflow.security.aggregation.secagg.server import Server
from secretflow.security.aggregation.secagg.support import Support
from secretflow.security.aggregation.secagg.transport.channel import Channel, Listener

__all__ = [
    "SERVER_ACTOR",
    "Call",
    "Channel",
    "ChannelClosedError",
    "Listener",
    "Message",
    "Operation",
    "Pads",
    "Ring",
    "Uploads",
    "aggregators",
    "encode_padded",
    "watched_uploads",
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
    names = [device.party for device in devices]
    rules = Rules.make(Ring.make(32, None, parties), parties)
    clients = [Client(name, names, rules) for name in names]
    agree_all([client.keys for client in clients])
    return maskers, clients, Server()


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
