"""What benchmarks use of the fork that is not its public interface, and nothing else does.

:mod:`benchmarks.aggregator` times one party's and the server's part of a call by themselves, and
:mod:`benchmarks.channel_sides` the channel between them; :mod:`benchmarks.training` finds the server's
process by the name of its actor.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from secretflow.device import PYU
from secretflow.security.aggregation import SecureAggregator
from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.errors import ChannelClosedError
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.message import Message
from secretflow.security.aggregation.secagg.pads import Pads
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
    "aggregators",
    "encode_padded",
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
    clients = [Client(name, names, Ring.make(32, None, parties), min_contributors=2) for name in names]
    agree_all([client.keys for client in clients])
    return maskers, clients, Server()
