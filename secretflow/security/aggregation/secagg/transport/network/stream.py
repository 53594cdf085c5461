"""A party's end of its stream to the server."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

import grpc

from ...dropouts.codec import decode_at_party, encode
from ...dropouts.protocol import Steps
from ...dropouts.wire import ToParty, ToServer
from ...errors import AggregationError, ChannelClosedError
from .frames import cut, joined
from .tls import KEEP_ALIVE, PARTY_KEY, Tls, check_loopback

METHOD = "/secretflow.Survivors/Exchange"

_Result = TypeVar("_Result")


class PartyStream:
    """Sends to the server and waits for what it says, each time for so long at most.

    Args:
        address: host and port of the server.
        party: own name.
        server: the server's name, which its certificate must have.
        tls: the party's files; None on loopback only.
        connect_seconds: how long the server is waited for.

    Raises:
        ChannelClosedError: the server was not there in time.
        AggregationError: there is no TLS, and the address is not of loopback.
    """

    def __init__(
        self,
        address: str,
        party: str,
        server: str,
        tls: Tls | None,
        *,
        connect_seconds: float,
    ) -> None:
        if tls is None:
            check_loopback(address)
            self._channel = grpc.insecure_channel(address, KEEP_ALIVE)
        else:
            options = (*KEEP_ALIVE, ("grpc.ssl_target_name_override", server))
            self._channel = grpc.secure_channel(address, tls.at_party(), options)
        try:
            grpc.channel_ready_future(self._channel).result(timeout=connect_seconds)
        except grpc.FutureTimeoutError:
            self._channel.close()
            raise ChannelClosedError(
                f"{server} must take streams at {address}, got none within {connect_seconds:g} seconds"
            ) from None
        self._party = party
        self._server = server
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[ToParty | Exception] = queue.SimpleQueue()
        self._call = self._channel.stream_stream(METHOD)(
            iter(self._outgoing.get, None), metadata=((PARTY_KEY, party),)
        )
        threading.Thread(target=self._read, daemon=True, name=f"stream of {party}").start()

    def send(self, message: ToServer) -> None:
        """Puts a message on its way."""
        for frame in cut(encode(message)):
            self._outgoing.put(frame)

    def receive(self, seconds: float) -> ToParty:
        """Waits for what the server says.

        Args:
            seconds: how long at most.

        Raises:
            ChannelClosedError: nothing came in time, or the stream has ended.
            AggregationError: what came is no message.
        """
        try:
            came = self._incoming.get(timeout=seconds)
        except queue.Empty:
            raise ChannelClosedError(
                f"{self._server} must answer within {round(seconds, 1):g} seconds, got nothing"
            ) from None
        if isinstance(came, Exception):
            raise came
        return came

    def close(self) -> None:
        """Ends the stream: nobody waits for this party any more."""
        self._outgoing.put(None)
        self._call.cancel()
        self._channel.close()

    def __enter__(self) -> PartyStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        try:
            for data in joined(self._frames()):
                self._incoming.put(decode_at_party(data))
            end: Exception = ChannelClosedError(f"{self._server} has ended the stream")
        except grpc.RpcError as error:
            end = ChannelClosedError(f"the stream to {self._server} has broken: {error.details()}")
        except AggregationError as error:
            end = error
        self._incoming.put(end)

    def _frames(self) -> Iterator[bytes]:
        yield from self._call


def drive(steps: Steps[_Result], stream: PartyStream, patience: float) -> _Result:
    """Carries the messages of a generator over a stream.

    Args:
        steps: the generator; closed on any error.
        stream: to the server.
        patience: seconds that an answer may take, whatever else is said before it.

    Returns:
        What the generator returns.

    Raises:
        ChannelClosedError: the stream has ended, or no answer came in time.
    """
    with contextlib.closing(steps):
        try:
            message, end = next(steps), time.monotonic() + patience
            while True:
                if message is not None:
                    stream.send(message)
                    end = time.monotonic() + patience
                left = end - time.monotonic()
                if left <= 0:
                    raise ChannelClosedError(f"an answer must come within {patience:g} seconds, got others")
                message = steps.send(stream.receive(left))
        except StopIteration as done:
            return done.value
