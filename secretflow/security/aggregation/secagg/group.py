"""The actors of one aggregation, from the driver's side: who takes part, and how they got their keys."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from ray.exceptions import RayActorError

from secretflow.device import PYU, PYUObject, proxy, reveal

from .errors import AggregationError
from .identity import Identities
from .participant import Participant
from .rules import Rules
from .server import Server

_ADDED_AT_ONCE = 16


class Group:
    """The parties' actors and the server's.

    Args:
        device: the server.
        parties: who takes part.
        rules: of the aggregation.
        identities: who the parties are; None if they are not pinned.

    Attributes:
        device: the server.
        parties: who takes part, in the order in which their keys and weights are given to each other.
        server: the server's actor.
        rules: of the aggregation.
        identities: who the parties are; None if they are not pinned.
    """

    def __init__(
        self,
        device: PYU,
        parties: Sequence[PYU],
        rules: Rules,
        identities: Identities | None,
    ) -> None:
        self.device = device
        self.parties = tuple(parties)
        self.rules = rules
        self.server: Any = proxy(PYUObject)(Server)(device=device)
        self.identities = identities
        self._hosts: Mapping[PYU, Any] | None = None
        self._members: dict[PYU, Any] = {}
        self._starts = 0
        self._name = secrets.token_hex(8)  # of this group at its members, on this machine alone

    @property
    def members(self) -> dict[PYU, Any]:
        """The parties' actors; if nobody hosts them, actors of their own, made when they are first needed."""
        if not self._members:
            self._join({party: proxy(PYUObject)(Participant)(device=party) for party in self.parties})
        return self._members

    def host_at(self, hosts: Mapping[PYU, Any]) -> bool:
        """Lets actors that the parties have anyway take part: a process less for each.

        Args:
            hosts: for each party an actor at it that is a :class:`~.participant.Participant`.

        Returns:
            Whether they are others than before, or have taken part in another group since; then there are
            new keys.
        """
        if hosts is self._hosts and all(
            reveal([member.belongs_to(self._name) for member in self._members.values()])
        ):
            return False
        self._hosts = hosts
        self._join({party: hosts[party] for party in self.parties})
        return True

    def next_start(self) -> int:
        """A number for the next calls, see :meth:`~.client.Client.number_calls`."""
        self._starts += 1
        return self._starts

    def add(self, messages: Sequence[PYUObject]) -> PYUObject:
        """Has the server add the parties' messages; returns the sum, which is there.

        Of many parties it gets some at a time, so that it does not hold all of them.
        """
        waiting = [message.to(self.device) for message in messages]
        while len(waiting) > _ADDED_AT_ONCE:
            some, waiting = waiting[:_ADDED_AT_ONCE], waiting[_ADDED_AT_ONCE:]
            waiting.insert(0, self.server.add_some(*some))
        return self.server.add(*waiting)

    def _join(self, members: dict[PYU, Any]) -> None:
        """Has the parties make their clients, which know of the calls of those before, and agree on keys."""
        before = self._remembered()
        self._members = members
        names = [party.party for party in self.parties]
        for party, member in members.items():
            how = names, self.rules, self.identities, self._name
            member.make_client(party.party, *how, before.get(party))
        public_keys = [member.public_key() for member in members.values()]
        confirmations = [
            member.agree_on_keys(*(key.to(party) for key in public_keys)) for party, member in members.items()
        ]
        for party, member in members.items():
            member.confirm_keys(*(confirmation.to(party) for confirmation in confirmations))
        first, *others = members
        wrapped = members[first].share_group_key()
        for party in others:
            members[party].take_group_key(wrapped.to(party))

    def _remembered(self) -> dict[PYU, PYUObject]:
        """What each party must know of its calls so far; it stays at the party.

        Raises:
            AggregationError: a party's process has gone, and what it knew with it.
        """
        try:
            reveal([member.belongs_to(self._name) for member in self._members.values()])
        except RayActorError:
            raise AggregationError(
                "the aggregator must know what it has opened before, and a party's process has gone that "
                "knew; make a new aggregator"
            ) from None
        return {party: member.remembered(self._name) for party, member in self._members.items()}
