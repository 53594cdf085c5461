"""The server's actor."""

from __future__ import annotations

from collections.abc import Iterator
from selectors import EVENT_READ, DefaultSelector
from typing import Any

import numpy as np

from .errors import AggregationError, ChannelClosedError
from .message import Message, add_up
from .opening import Opening
from .transport.channel import Channel, Listener


class Server:
    """Adds padded messages. It holds no key, and sees nothing but uniformly random numbers and their sum.

    Messages are added as they come, so the memory that it takes does not grow with the number of parties.
    """

    def __init__(self) -> None:
        self._last_call = 0
        self._listener: Listener | None = None
        self._channels: list[Channel] = []

    def listen(self) -> str:
        """Waits for the parties' ends to connect.

        Returns:
            Where; empty if this machine has no place for a socket.
        """
        self._hang_up()
        self._stop_listening()
        try:
            self._listener = Listener()
        except OSError:
            return ""
        return self._listener.address

    def accept(self, processes: int) -> None:
        """Takes the channels of those that have connected; no others can from then on.

        Args:
            processes: how many have, each with one party or more; with 0, what was waited for is given up.
        """
        try:
            listener = self._listener
            self._channels = [listener.accept() for _ in range(processes)] if listener else []
        finally:
            self._stop_listening()

    def serve(self, sums: int, parties: int) -> None:
        """Adds the messages of several calls, which come and go over the channels.

        Args:
            sums: how many calls, at least 1.
            parties: how many messages a sum is of. A party sends its next one when it has the sum, so it does
                not matter over which channels they come.

        Raises:
            AggregationError: as of :meth:`add`. All channels are closed then.
            ChannelClosedError: a party has given up, or there are no channels. All are closed then.
        """
        if not self._channels:
            raise ChannelClosedError("the server has no channels to the parties")
        try:
            with DefaultSelector() as ready:
                for channel in self._channels:
                    ready.register(channel, EVENT_READ)
                for _ in range(sums):
                    total = self._new(add_up(_incoming(ready, parties)))
                    for channel in self._channels:
                        channel.send(total)
        except BaseException:
            self._hang_up()
            raise

    def add(self, *messages: Message) -> Message:
        """Adds the messages of one call, one from each party.

        Raises:
            AggregationError: the messages do not belong together, or their call is not a new one.
        """
        return self._new(add_up(messages))

    def add_some(self, *messages: Message) -> Message:
        """Adds some of the messages of one call; :meth:`add` takes the result for one of them."""
        return add_up(messages)

    def _new(self, total: Message) -> Message:
        if total["call"] <= self._last_call:
            raise AggregationError(
                f"call {total['call']} is not larger than the last one added, {self._last_call}"
            )
        self._last_call = total["call"]
        return total

    def open(self, total: Message, opening: Opening, axis: int | None) -> Any:
        """Reads a sum at the server, for callers who want the result there.

        Args:
            total: the sum.
            opening: what one party says about it.
            axis: 0 leaves arrays, None also adds up the elements of each array.
        """
        result = opening.open(total)
        if axis == 0:
            return result
        if isinstance(result, list):
            return [_sum_of_elements(array, opening.weight_total) for array in result]
        return _sum_of_elements(result, opening.weight_total)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _hang_up(self) -> None:
        for channel in self._channels:
            channel.close()
        self._channels = []


def _incoming(ready: DefaultSelector, count: int) -> Iterator[Message]:
    """So many messages, from whatever channel has one."""
    while count > 0:
        for key, _ in ready.select()[:count]:
            count -= 1
            yield key.fileobj.receive()  # type: ignore[union-attr]


def _sum_of_elements(array: np.ndarray, weight_total: np.ndarray | None) -> Any:
    # float16 would overflow at 65504 long before the sum of many elements does in float64.
    wide = np.float64 if array.dtype.kind == "f" else array.dtype
    if weight_total is None:
        return np.sum(array, dtype=wide)
    return np.sum(array * weight_total, dtype=wide) / np.sum(weight_total)
