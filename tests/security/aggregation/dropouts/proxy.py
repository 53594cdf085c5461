"""A link between a party and the server that is slow, far, falls silent, or breaks."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from dataclasses import dataclass

_PIECE_BYTES = 1 << 14


@dataclass(frozen=True)
class Link:
    """How a link is.

    Attributes:
        delay: seconds that each piece is under way, after which others follow.
        bits_per_second: how much gets through; 0 for no limit.
        breaks_after: bytes towards the server after which it breaks; 0 for never.
        silent_after: bytes towards the server after which nothing gets through either way, and nobody is told
            so; 0 for never.
        once: whether only the first connection breaks or falls silent; else all do.
    """

    delay: float = 0.0
    bits_per_second: int = 0
    breaks_after: int = 0
    silent_after: int = 0
    once: bool = False


class Proxy:
    """Listens on a port of this machine and passes on what comes.

    Args:
        target: host and port, or ``unix:`` and a path.
        link: how it does so.

    Attributes:
        address: where it listens.
        connections: how many have come.
    """

    def __init__(self, target: str, link: Link) -> None:
        self._target = target
        self._link = link
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Breaks all connections, and takes no others."""
        self._listening.close()
        for one in self._sockets:
            _break(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listening.accept()[0]
                far = _connected(self._target)
                self._sockets += [near, far]
                self.connections += 1
                connection = _Connection(self._link, fails=not self._link.once or self.connections == 1)
                for source, sink, up in ((near, far, True), (far, near, False)):
                    arguments = (connection, source, sink, up)
                    threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(self, connection: _Connection, source: socket.socket, sink: socket.socket, up: bool) -> None:
        """Takes what comes at the speed of the link; :meth:`_deliver` gives it out later."""
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        arguments = (connection, under_way, source, sink, up)
        threading.Thread(target=self._deliver, args=arguments, daemon=True).start()
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                if self._link.bits_per_second:
                    time.sleep(8 * len(piece) / self._link.bits_per_second)
                under_way.put((time.monotonic() + self._link.delay, piece))
        under_way.put((time.monotonic() + self._link.delay, b""))

    def _deliver(
        self,
        connection: _Connection,
        under_way: queue.SimpleQueue[tuple[float, bytes]],
        source: socket.socket,
        sink: socket.socket,
        up: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while not connection.broken:
                due, piece = under_way.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not piece:
                    break
                sink.sendall(connection.passing(piece, up))
        if connection.silent:
            return  # the end is not told either
        if connection.broken and not self._link.once:
            self.close()
        for one in (source, sink) if connection.broken else ():
            _break(one)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class _Connection:
    """What has become of one connection."""

    def __init__(self, link: Link, fails: bool) -> None:
        self._link = link
        self._fails = fails
        self._up = 0
        self.broken = self.silent = False

    def passing(self, piece: bytes, up: bool) -> bytes:
        """What gets through of a piece."""
        limit = self._link.breaks_after or self._link.silent_after
        if up and limit and self._fails:
            self._up += len(piece)
            if self._up > limit:
                self.broken, self.silent = bool(self._link.breaks_after), bool(self._link.silent_after)
                return piece[: max(0, len(piece) - (self._up - limit))]
        return b"" if self.silent else piece


def _connected(target: str) -> socket.socket:
    if target.startswith("unix:"):
        one = socket.socket(socket.AF_UNIX)
        one.connect(target.removeprefix("unix:"))
        return one
    host, port = target.split(":")
    return socket.create_connection((host, int(port)))


def _break(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
