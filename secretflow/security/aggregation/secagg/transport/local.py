"""Transport: sockets from the parties' processes to the server's, on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from secretflow.device import PYU, PYUObject, reveal
from secretflow.distributed.primitive import DISTRIBUTION_MODE, get_distribution_mode

from ..errors import ChannelClosedError
from ..group import Group
from .interface import Begin
from .processes import processes_of

_SECONDS_AT_ONCE = 0.5
"""So long the parties go on by themselves, for the progress bar to move and errors to come soon."""


class LocalTransport:
    """Works where parties and server are processes of one machine, in a simulation.

    One call of each process stands for many messages, of all parties that live there. :meth:`open` makes it.

    Args:
        group: whose messages are carried; it has channels.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._is_open = True
        self._rounds_at_once = 1  # whatever a round of this model takes, the user soon hears of the first

    @classmethod
    def open(cls, group: Group) -> LocalTransport | None:
        """Opens channels from every party to the server.

        Args:
            group: whose messages shall be carried.

        Returns:
            The transport; None where the parties and the server are not processes of one machine.
        """
        if get_distribution_mode() is not DISTRIBUTION_MODE.SIMULATION:
            return None
        return cls(group) if _connect(group) else None

    def rounds_at_once(self) -> int:
        """One, then as many as took half a second the last time."""
        return self._rounds_at_once

    def run(self, begin: Begin, exchanges: int, rounds: int = 0) -> dict[PYU, Any]:
        """Has parties and server carry all messages over the channels, see :class:`~.interface.Transport`.

        After an error the channels are closed; the next run opens new ones.
        """
        group = self._group
        if not self._is_open and not _connect(group):
            raise ChannelClosedError("the channels of the aggregation could not be opened again")
        self._is_open = False  # until all is known to be well
        start, started = group.next_start(), time.perf_counter()
        served = group.server.serve(exchanges, len(group.members))
        try:
            begun = {party: begin(party, start) for party in group.members}
            ends = {process.parties: process.exchange(begun) for process in processes_of(group.members)}
            _wait_for([*ends.values(), served], lambda: _hang_up(group))
        except BaseException:
            _hang_up(group)  # whoever has not begun will not, and the others wait for him
            raise
        self._is_open = True
        if rounds:
            seconds = (time.perf_counter() - started) / rounds
            self._rounds_at_once = max(1, round(_SECONDS_AT_ONCE / seconds))
        results = {
            party: result
            for parties, end in ends.items()
            for party, result in zip(parties, reveal(end), strict=True)
        }
        return {party: results[party] for party in group.members}


def _connect(group: Group) -> bool:
    address, expected = reveal(group.server.listen()), 0
    try:
        reached = reveal([process.connect(address) for process in processes_of(group.members)])
        expected = len(reached) if all(reached) else 0
    finally:
        accepted = group.server.accept(expected)
        if not expected:
            _hang_up(group)
    reveal(accepted)
    return bool(expected)


def _hang_up(group: Group) -> None:
    for process in processes_of(group.members):
        process.hang_up()


def _wait_for(ends: Sequence[PYUObject], on_error: Callable[[], None]) -> None:
    """Waits for all, in the order in which they end.

    Args:
        ends: what is waited for.
        on_error: called once when the first has failed, to free those that wait for it.

    Raises:
        Exception: one of theirs, rather one that others may have followed from.
    """
    errors: list[Exception] = []
    waiting = [end.data for end in ends]
    while waiting:
        (ended, *_), waiting = ray.wait(waiting)
        try:
            ray.get(ended)
        except Exception as error:
            if not errors:
                on_error()
            errors.append(error)
    if errors:
        raise min(errors, key=lambda error: isinstance(error, ChannelClosedError))
