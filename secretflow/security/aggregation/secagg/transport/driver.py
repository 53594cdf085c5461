"""Transport: the driver carries every message, as objects of Ray or RayFed."""

from __future__ import annotations

from typing import Any

from secretflow.device import PYU, PYUObject, reveal

from ..group import Group
from .interface import Begin


class DriverTransport:
    """Works wherever SecretFlow does: over the network, on several machines, and in debug mode.

    Args:
        group: whose messages are carried.
        rounds_at_once: see :class:`~.interface.Transport`. It does not go by the clock, for all parties'
            drivers must ask for the same in the same order.
    """

    def __init__(self, group: Group, rounds_at_once: int = 1) -> None:
        self._group = group
        self._rounds_at_once = rounds_at_once

    def rounds_at_once(self) -> int:
        """As many as the user said."""
        return self._rounds_at_once

    def run(self, begin: Begin, exchanges: int, rounds: int = 0) -> dict[PYU, Any]:
        """Carries all messages through the driver, see :class:`~.interface.Transport`."""
        members = self._group.members
        try:
            total = self.last_sum(begin, exchanges)
            return reveal({party: member.finish(total.to(party)) for party, member in members.items()})
        except BaseException:
            for member in members.values():
                member.abandon()  # or whoever waits for a sum would stand in the middle of a round
            raise

    def last_sum(self, begin: Begin, exchanges: int) -> PYUObject:
        """Carries all messages but the last sum, which stays at the server.

        Args:
            begin: as for :meth:`run`.
            exchanges: as for :meth:`run`.
        """
        group, start = self._group, self._group.next_start()
        # What beginning returns is None, or the error that the party's first message shall fail with.
        before = {party: begin(party, start) for party in group.members}
        for _ in range(exchanges):
            messages = [member.advance(before[party]) for party, member in group.members.items()]
            total = group.add(messages)
            before = {party: total.to(party) for party in group.members}
        return total
