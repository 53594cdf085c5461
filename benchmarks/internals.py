"""What benchmarks use of the fork that is not its public interface, and nothing else does.

:mod:`benchmarks.aggregator` times one party's and the server's part of a call by themselves, and
:mod:`benchmarks.channel_sides` the channel between them; :mod:`benchmarks.training` finds the server's
process by the name of its actor.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from functools import cache
from typing import Any

import numpy as np

from secretflow.device import PYU
from secretflow.security.aggregation import SecureAggregator
from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.dropouts.client import SurvivingClient
from secretflow.security.aggregation.secagg.dropouts.protocol import with_survivors
from secretflow.security.aggregation.secagg.dropouts.rules import SurvivorRules
from secretflow.security.aggregation.secagg.dropouts.server import Outgoing, SurvivorServer
from secretflow.security.aggregation.secagg.errors import ChannelClosedError
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.message import Message
from secretflow.security.aggregation.secagg.pads import Pads
from secretflow.security.aggregation.secagg.protocol import combine
from secretflow.security.aggregation.secagg.ring import Ring, encode_padded
from secretflow.security.aggregation.secagg.server import Server
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
    "Survivors",
    "aggregators",
    "encode_padded",
    "plain_clients",
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
    names = [f"party{k:02}" for k in range(parties)]
    clients = [Client(name, names, Ring.make(32, None, parties), min_contributors=2) for name in names]
    agree_all([client.keys for client in clients])
    return clients, Server()


class Survivors:
    """Averages that end with those who are there, all in this process.

    Args:
        parties: how many begin.
        numbers: what each averages, time and again.
    """

    def __init__(self, parties: int, numbers: Sequence[list[np.ndarray]]) -> None:
        names = [f"party{k:02}" for k in range(parties)]
        rules = SurvivorRules.make(parties, parties // 2 + 1, 2)
        ring = Ring.make(32, None, parties)
        clients = [SurvivingClient(name, names, ring, rules) for name in names]
        agree_all([client.keys for client in clients])
        self._server = SurvivorServer(names, rules)
        self._clients = dict(zip(names, clients, strict=True))
        self._numbers = dict(zip(names, numbers, strict=True))

    def round(self, lost: int) -> None:
        """Runs one; the last ``lost`` parties upload nothing."""
        there = list(self._clients)[: len(self._clients) - lost]
        steps = {}
        for name in there:
            own = self._numbers[name]
            own[0][0] += 1  # what was agreed to be opened with all is not uploaded for fewer
            steps[name] = with_survivors(
                self._clients[name], combine(self._clients[name], Operation.AVERAGE, own)
            )
        said = {name: next(step) for name, step in steps.items()}
        for last in (False, False, True):
            told: Outgoing = []
            for name, message in said.items():
                assert message is not None
                told += self._server.receive(name, message)
            for name, answer in told or self._server.time_out():
                with suppress(StopIteration) if last else nullcontext():
                    if name in there:
                        said[name] = steps[name].send(answer)
