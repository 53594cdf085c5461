"""A link between a party and the server that is slow, far, or breaks."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """How a link is.

    Attributes:
        delay: seconds that each piece is under way.
        bits_per_second: how much gets through; 0 for no limit.
        breaks_after: bytes towards the server after which it breaks; 0 for never.
    """

    delay: float = 0.0
    bits_per_second: int = 0
    breaks_after: int = 0


class Proxy:
    """Listens on a port of this machine and passes on what comes.

    Args:
        target: host and port.
        link: how it does so.

    Attributes:
        address: where it listens.
    """

    def __init__(self, target: str, link: Link) -> None:
        self._target = target
        self._link = link
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Breaks all connections."""
        self._listening.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        host, port = self._target.split(":")
        with contextlib.suppress(OSError):
            while True:
                near = self._listening.accept()[0]
                far = socket.create_connection((host, int(port)))
                self._sockets += [near, far]
                for source, sink, limit in ((near, far, self._link.breaks_after), (far, near, 0)):
                    threading.Thread(target=self._pass_on, args=(source, sink, limit), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, limit: int) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 12):
                if self._link.bits_per_second:
                    time.sleep(8 * len(piece) / self._link.bits_per_second)
                time.sleep(self._link.delay)
                passed += len(piece)
                if limit and passed > limit:
                    self.close()
                    return
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
