"""The server's end of the parties' streams: it carries messages and keeps the time."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc

from ...dropouts.codec import decode_at_server, encode
from ...dropouts.joining import Session
from ...dropouts.server import Outgoing
from ...dropouts.wire import Ended, ToParty, ToServer
from ...errors import AggregationError
from .frames import cut, joined
from .stream import METHOD
from .tls import KEEP_ALIVE, Tls, check_loopback, sender_of

_OVERSLEPT = 1.0  # seconds: if this process stood still for longer, the parties are not to blame
_SECONDS_OF_A_LOOK = 1.0
_STOOD_STILL = 10.0  # seconds: after as long streams break, one by one, of parties that are there


@dataclass(eq=False)
class _Line:
    """The stream of one party.

    Attributes:
        party: its name.
        outgoing: messages for it; None ends the stream.
    """

    party: str
    outgoing: queue.SimpleQueue[bytes | None] = field(default_factory=queue.SimpleQueue)


class Hub:
    """Serves one session of parties.

    A party whose stream ends is gone at once; one that is silent is gone when the step's time is over. A
    connection that answers no keep-alive for 20 seconds counts as ended. If this process stands still for so
    long that streams may have broken, all parties come anew, as to a server that was started again.

    Args:
        address: host and port to listen on; port 0 takes a free one.
        names: of the parties.
        session: what is served.
        tls: the server's files; None on loopback only.
        round_deadline: seconds that a step may take, training included.
        wait: seconds from the start in which parties may come.
        on_reports: is given what parties have told each other, by sender.

    Raises:
        AggregationError: the address cannot be listened on, or is not of loopback and there is no TLS.
    """

    def __init__(
        self,
        address: str,
        names: Sequence[str],
        session: Session,
        tls: Tls | None,
        *,
        round_deadline: float,
        wait: float,
        on_reports: Callable[[Mapping[str, bytes]], None] = lambda _: None,
    ) -> None:
        self._on_reports = on_reports
        self._names = tuple(names)
        self._session = session
        self._has_tls = tls is not None
        self._round_deadline = round_deadline
        self._wait = wait
        self._events: queue.SimpleQueue[tuple[_Line, ToServer | None] | None] = queue.SimpleQueue()
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()
        # A thread for each stream, and one for somebody to be refused.
        self._grpc = grpc.server(ThreadPoolExecutor(len(names) + 1), options=KEEP_ALIVE)
        service, method = METHOD.strip("/").split("/")
        handler = grpc.stream_stream_rpc_method_handler(self._exchange)
        self._grpc.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        if tls is None:
            check_loopback(address)
        try:
            port = (
                self._grpc.add_insecure_port(address)
                if tls is None
                else self._grpc.add_secure_port(address, tls.at_server())
            )
        except RuntimeError:
            port = 0
        if not port:
            raise AggregationError(f"address must be a free one of this machine, got {address}")
        of_network = not address.startswith("unix:")
        self.address = f"{address.rpartition(':')[0]}:{port}" if of_network else address

    def serve(self) -> Ended | None:
        """Serves until there will be no further call, and all parties have been told or have gone.

        Returns:
            What they were told of the end if it is another one than that they have all they want.
        """
        self._grpc.start()
        try:
            before, worked = time.monotonic(), time.process_time()
            end, steps = before + self._wait, self._session.steps
            while not self._session.has_ended:
                seconds = min(_SECONDS_OF_A_LOOK, max(0.0, end - time.monotonic()))
                try:
                    event = self._events.get(timeout=seconds)
                    if event is None:
                        break
                except queue.Empty:
                    event = None
                now, work = time.monotonic(), time.process_time()
                idle = now - before - (work - worked)
                before, worked = now, work
                if idle > _SECONDS_OF_A_LOOK + _STOOD_STILL:
                    self._begin_anew()
                    steps, end = self._session.steps, now + self._round_deadline
                elif event is not None:
                    self._take(*event)
                elif now > end + _OVERSLEPT:
                    end = now + self._round_deadline
                elif now >= end:
                    self._send(self._session.time_out())
                if reports := self._session.take_reports():
                    self._on_reports(reports)
                if self._session.steps != steps:
                    steps, end = self._session.steps, time.monotonic() + self._round_deadline
        finally:
            self._stop()
        return None if self._session.is_over else self._session.ended

    def stop(self) -> None:
        """Has :meth:`serve` end soon; for another thread."""
        self._events.put(None)

    def _begin_anew(self) -> None:
        with self._lock:
            for line in self._lines.values():
                line.outgoing.put(None)
            self._lines.clear()
        self._session = self._session.anew()

    def _take(self, line: _Line, message: ToServer | None) -> None:
        if self._lines.get(line.party) is not line:
            return  # the end of the stream was noticed before what had come over it
        if message is not None:
            self._send(self._session.receive(line.party, message))
        else:
            del self._lines[line.party]
            self._send(self._session.lose(line.party))

    def _send(self, outgoing: Outgoing) -> None:
        last: ToParty | None = None
        frames: list[bytes] = []
        for party, message in outgoing:
            if party in self._lines:
                if message is not last:  # a sum is held once, for how many it may be
                    last, frames = message, list(cut(encode(message)))
                for frame in frames:
                    self._lines[party].outgoing.put(frame)

    def _stop(self) -> None:
        with self._lock:
            for line in self._lines.values():
                line.outgoing.put(None)
        self._grpc.stop(grace=self._round_deadline).wait()

    def _exchange(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Serves the stream of one party; runs in a thread of its own."""
        party = sender_of(context, self._names, self._has_tls)
        if party is None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a party of this aggregation must open the stream")
            return
        line = _Line(party)
        with self._lock:
            if party in self._lines:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{party} has a stream already")
                return
            self._lines[party] = line
        context.add_callback(lambda: self._end(line))
        threading.Thread(target=self._read, args=(line, frames), daemon=True).start()
        yield from iter(line.outgoing.get, None)

    def _read(self, line: _Line, frames: Iterator[bytes]) -> None:
        # Whatever ends a stream is the party's end: it is broken, over, or says what is no message.
        with contextlib.suppress(grpc.RpcError, AggregationError, ValueError):
            for data in joined(frames):
                self._events.put((line, decode_at_server(data)))
        self._end(line)

    def _end(self, line: _Line) -> None:
        self._events.put((line, None))
        line.outgoing.put(None)
