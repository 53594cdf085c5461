"""A channel between a party's process and the server's on one machine, beside the driver.

A call of a Ray actor costs more than a small model's round: messages that go through a socket from actor to
actor leave the driver out for many rounds. What crosses it is a :class:`~..message.Message`: the length of
its header, the header as JSON, then the ring elements as they lie in memory. Nothing is unpickled.

It is written by hand because ``multiprocessing.connection`` copies a long message several times: the dense
round of a net of 1.7 million weights would take a fifth longer, and longer still over gRPC. A small net's
would not (``python -m benchmarks.channels``, into ``benchmarks/results/channels.json``).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import tempfile
import weakref
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TypedDict, TypeVar

import numpy as np

from ..errors import AggregationError, ChannelClosedError
from ..message import PACKED, Message

_Result = TypeVar("_Result")

_LENGTH = struct.Struct("!I")
_BUFFER_BYTES = 1 << 22
_MOST_HEADER_BYTES = 1 << 16
_MOST_ELEMENTS = 1 << 32
_DTYPES = ("|u1", "<u2", "<u4", "<u8")
"""Of ballots on masks, and of the elements of both rings."""


class _Header(TypedDict):
    """A message without its elements.

    Attributes:
        body: dtype and size of each array that follows.
        lane_bits: see :class:`~..message.Message`; None if nothing is packed.
    """

    call: int
    layout: str
    encoding: str
    body: list[tuple[str, int]]
    lane_bits: int | None


_open_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _close_in_child() -> None:
    """A child holds its parent's sockets open; if the parent dies, the other end would wait for the child."""
    for channel in list(_open_channels):
        channel._connection.close()


os.register_at_fork(after_in_child=_close_in_child)


class Channel:
    """One end. Close it on any error: the stream may be in the middle of a message.

    Args:
        connection: to the other end.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        _open_channels.add(self)
        # As much as the system allows: each time the buffer is full, the processes take turns.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)

    @classmethod
    def to(cls, address: str) -> Channel:
        """Connects to a :class:`Listener`.

        Raises:
            OSError: nobody listens there; so it is on another machine.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            raise
        return cls(connection)

    def send(self, message: Message) -> None:
        """Sends a message.

        Raises:
            ChannelClosedError: the other end has gone.
        """
        try:
            self._send_all(frame(message))
        except OSError as error:
            raise ChannelClosedError(f"the other end of the channel has gone: {error}") from None

    def receive(self) -> Message:
        """Waits for a message.

        Raises:
            ChannelClosedError: the other end has gone.
            AggregationError: what came is no message.
        """
        (length,) = _LENGTH.unpack(self._read(np.empty(_LENGTH.size, np.uint8)).data)
        if length > _MOST_HEADER_BYTES:
            raise AggregationError(
                f"a message's header of {length} bytes came: no more than {_MOST_HEADER_BYTES}"
            )
        header = _parsed(self._read(np.empty(length, np.uint8)).tobytes())
        body = [self._read(np.empty(size, dtype)) for dtype, size in header["body"]]
        message = Message(
            call=header["call"], layout=header["layout"], encoding=header["encoding"], body=body
        )
        if header["lane_bits"] is not None:
            message["lane_bits"] = header["lane_bits"]
        return message

    def fileno(self) -> int:
        """The number of the socket, for whoever waits for one of several."""
        return self._connection.fileno()

    def close(self) -> None:
        """Ends the channel; the other end fails when it sends or receives."""
        # By itself close would leave the other end waiting if this process has been forked since.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _send_all(self, parts: list[bytes | memoryview]) -> None:
        """Sends parts one behind the other, at once: the other end shall not wake up for each."""
        rest = [memoryview(part).cast("B") for part in parts if len(part)]
        while rest:
            sent = self._connection.sendmsg(rest)
            while rest and sent >= len(rest[0]):
                sent -= len(rest.pop(0))
            if sent:
                rest[0] = rest[0][sent:]

    def _read(self, array: np.ndarray) -> np.ndarray:
        rest = array.view(np.uint8).data
        while rest:
            try:
                received = self._connection.recv_into(rest)
            except OSError as error:
                raise ChannelClosedError(f"the other end of the channel has gone: {error}") from None
            if not received:
                raise ChannelClosedError("the other end of the channel has gone")
            rest = rest[received:]
        return array


def frame(message: Message) -> list[bytes | memoryview]:
    """A message as it goes over a channel, in parts one behind the other."""
    body = [(part.dtype.str, part.size) for part in message["body"]]
    text = json.dumps({**message, "body": body}).encode()
    return [_LENGTH.pack(len(text)) + text, *(part.data for part in message["body"])]


def drive(
    exchanges: Sequence[Generator[Message, Message, _Result]], channel: Channel | None
) -> list[_Result]:
    """Carries the messages of the generators of one process over its channel, and the sums back.

    They take turns: each gives a message, in their order, then all are resumed with the sum. So none waits
    for another one of this process.

    Args:
        exchanges: the generators, which give equally many messages; closed on any error.
        channel: to the server; None if there is none.

    Returns:
        What each generator returns.

    Raises:
        ChannelClosedError: the other end has gone, or there is no channel.
        AggregationError: one gives more messages than another.
    """
    with contextlib.ExitStack() as opened:
        for one in exchanges:
            opened.enter_context(contextlib.closing(one))
        if channel is None:
            raise ChannelClosedError("this process has no channel to the server")
        total: Message | None = None
        results: list[_Result] = []
        while not results:
            for one in exchanges:
                try:
                    channel.send(one.send(total))  # type: ignore[arg-type]
                except StopIteration as end:
                    results.append(end.value)
            if not results:
                total = channel.receive()
    if len(results) < len(exchanges):
        raise AggregationError("the parties of one process must give equally many messages")
    return results


def _parsed(text: bytes) -> _Header:
    """Reads a header.

    Raises:
        AggregationError: it is none.
    """
    try:
        fields = json.loads(text)
        header = _Header(
            call=fields["call"],
            layout=fields["layout"],
            encoding=fields["encoding"],
            body=[(dtype, size) for dtype, size in fields["body"]],
            lane_bits=fields.get("lane_bits"),
        )
    except (ValueError, TypeError, KeyError):
        raise AggregationError("what came over a channel is no message") from None
    well = isinstance(header["call"], int) and isinstance(header["layout"], str)
    well = well and isinstance(header["encoding"], str)
    bits, packed = header["lane_bits"], header["body"][PACKED:][:1]
    if bits is not None:
        well = well and isinstance(bits, int) and 0 < bits < 64 and [d for d, _ in packed] == ["<u8"]
    for dtype, size in header["body"]:
        well = well and dtype in _DTYPES and isinstance(size, int) and 0 <= size <= _MOST_ELEMENTS
    if not well:
        raise AggregationError("what came over a channel is no message: a field is not what it must be")
    return header


class Listener:
    """Where the server waits for the parties: a socket in a folder that only this user can enter."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="secretflow-")
        self.address = str(Path(self._folder.name, "socket"))
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listening.bind(self.address)
            self._listening.listen(socket.SOMAXCONN)
        except OSError:  # the path may be too long
            self.close()
            raise

    def accept(self) -> Channel:
        """The channel to the next that connects."""
        return Channel(self._listening.accept()[0])

    def close(self) -> None:
        """Ends waiting; channels stay open."""
        self._listening.close()
        self._folder.cleanup()
