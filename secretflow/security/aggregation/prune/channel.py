"""A channel between a party's process and the server's on one machine, beside the driver.

A call of a Ray actor costs more than a small model's round: payloads that go through a socket from actor to
actor leave the driver out for many rounds. What crosses it is a :class:`~.payload.Payload`, in a frame of its
own: its header as JSON, then the ring elements as they lie in memory. Nothing is unpickled.
"""

from __future__ import annotations

import json
import socket
import struct
import tempfile
from pathlib import Path
from typing import TypedDict

import numpy as np

from .errors import ChannelClosedError
from .payload import Payload

_LENGTH = struct.Struct("!I")
_BUFFER_BYTES = 1 << 22


class _Header(TypedDict):
    """A payload without its elements.

    Attributes:
        body: dtype and size of each array that follows.
    """

    call: int
    frame: str
    encoding: str
    body: list[tuple[str, int]]


class Channel:
    """One end; closed by an error at either end.

    Args:
        connection: to the other end.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
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

    def send(self, payload: Payload) -> None:
        """Sends a payload.

        Raises:
            ChannelClosedError: the other end has gone.
        """
        body = [(part.dtype.str, part.size) for part in payload["body"]]
        header = _Header(
            call=payload["call"], frame=payload["frame"], encoding=payload["encoding"], body=body
        )
        text = json.dumps(header).encode()
        try:
            self._connection.sendall(_LENGTH.pack(len(text)) + text)
            for part in payload["body"]:
                if part.size:  # nobody waits for nothing, so the other end may have gone by then
                    self._connection.sendall(part.data)
        except OSError as error:
            raise ChannelClosedError(f"the other end of the channel has gone: {error}") from None

    def receive(self) -> Payload:
        """Waits for a payload.

        Raises:
            ChannelClosedError: the other end has gone.
        """
        (length,) = _LENGTH.unpack(self._read(np.empty(_LENGTH.size, np.uint8)).data)
        header: _Header = json.loads(self._read(np.empty(length, np.uint8)).tobytes())
        body = [self._read(np.empty(size, dtype)) for dtype, size in header["body"]]
        return Payload(call=header["call"], frame=header["frame"], encoding=header["encoding"], body=body)

    def close(self) -> None:
        """Ends the channel; the other end fails when it sends or receives."""
        self._connection.close()

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


class Listener:
    """Where the server waits for the parties: a socket in a folder that only this user can enter."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="secretflow-")
        self.address = str(Path(self._folder.name, "socket"))
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(self.address)
        self._listening.listen(socket.SOMAXCONN)

    def accept(self) -> Channel:
        """The channel to the next that connects."""
        return Channel(self._listening.accept()[0])

    def close(self) -> None:
        """Ends waiting; channels stay open."""
        self._listening.close()
        self._folder.cleanup()
