"""The processes of the parties on one machine, and what each does for the parties that live in it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secretflow.device import PYU, PYUObject
from secretflow.device.tenants import Tenant

from ..protocol import Exchanges
from .channel import Channel, drive

if TYPE_CHECKING:
    from ..participant import Participant


@dataclass(frozen=True)
class PartyProcess:
    """A process with the parties that live in it, from the driver's side.

    Attributes:
        actor: does work of all of them, see :meth:`~secretflow.device.shared_process.Process.together`.
        parties: who.
    """

    actor: Any
    parties: tuple[PYU, ...]

    def connect(self, address: str) -> PYUObject:
        """Opens a channel to the server, see :func:`connect`."""
        return self.actor.together(connect, self.parties, address)

    def exchange(self, begun: Mapping[PYU, PYUObject]) -> PYUObject:
        """Carries all messages of its parties; a list of what comes out, in their order.

        Args:
            begun: of each party what the method has returned that began.
        """
        return self.actor.together(exchange, self.parties, *(begun[party] for party in self.parties))

    def hang_up(self) -> None:
        """Closes the channel, see :func:`hang_up`."""
        self.actor.together(hang_up, self.parties)


def processes_of(members: Mapping[PYU, Any]) -> list[PartyProcess]:
    """The processes in which parties' actors are: shared ones, or one for each.

    Args:
        members: of each party what stands for its :class:`~..participant.Participant`.
    """
    found: dict[int, tuple[Any, list[PYU]]] = {}
    for party, member in members.items():
        actor = getattr(member, "process", member)
        found.setdefault(id(actor), (actor, []))[1].append(party)
    return [PartyProcess(actor, tuple(parties)) for actor, parties in found.values()]


def connect(tenants: Sequence[Tenant[Participant]], address: str) -> bool:
    """Opens a channel from this process to the server's, in place of the last one.

    Args:
        tenants: the parties that live here.
        address: of the server's listener.

    Returns:
        Whether it could be reached; if not, it is on another machine.
    """
    hang_up(tenants)
    try:
        channel = Channel.to(address)
    except OSError:
        return False
    for tenant in tenants:
        tenant.held.channel = channel
    return True


def exchange(tenants: Sequence[Tenant[Participant]], *_: None) -> list[Any]:
    """Carries all messages of the parties that live here over their channel; returns what comes out.

    Args:
        tenants: they have begun.
        *_: of the methods that began, for they must have.

    Raises:
        ChannelClosedError: the server has gone, or there is no channel.
    """
    parties = [tenant.held for tenant in tenants]
    try:
        begun = [_in_turn(tenant, tenant.held.take_begun()) for tenant in tenants]
        results = drive(begun, parties[0].channel)
        for party in parties:
            party.end_exchanges()
        return results
    except BaseException:
        hang_up(tenants)  # or the others would wait for these parties
        raise


def hang_up(tenants: Sequence[Tenant[Participant]]) -> None:
    """Closes the channel, if there is one: nobody waits for these parties any more."""
    for tenant in tenants:
        if tenant.held.channel is not None:
            tenant.held.channel.close()
            tenant.held.channel = None


def _in_turn(tenant: Tenant[Participant], exchanges: Exchanges[Any]) -> Exchanges[Any]:
    """A party's exchanges, each step of which is its turn."""
    total: Any = None
    with contextlib.closing(exchanges):
        while True:
            with tenant.turn():
                try:
                    message = exchanges.send(total)
                except StopIteration as end:
                    return end.value
            total = yield message
            del message
