"""A message to another process and back, over the fork's channel and over what could be bought instead.

The processes import this module, so it imports little.
"""

from __future__ import annotations

import json
import multiprocessing
import secrets
import struct
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import Any

import grpc
import numpy as np

from benchmarks.internals import Channel, ChannelClosedError, Listener, Message

_SECONDS_TO_LISTEN = 180  # it imports on a machine that may be busy

Echo = Callable[[Message], Message]


def _header(message: Message) -> bytes:
    body = [(part.dtype.str, part.size) for part in message["body"]]
    return json.dumps({**message, "body": body}).encode()


@contextmanager
def _server(target: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    """A process that runs ``target``; gives what that says first, the address it listens at."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    try:
        if not ours.poll(_SECONDS_TO_LISTEN):
            raise TimeoutError(f"{target.__name__} must listen within {_SECONDS_TO_LISTEN} s")
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def serve_hand_written(parent: Any) -> None:
    """Echoes what comes over :class:`Channel`."""
    listener = Listener()
    parent.send(listener.address)
    channel = listener.accept()
    with suppress(ChannelClosedError):
        while True:
            channel.send(channel.receive())


@contextmanager
def hand_written() -> Iterator[Echo]:
    """The fork's channel."""
    with _server(serve_hand_written) as address:
        channel = Channel.to(address)

        def echo(message: Message) -> Message:
            channel.send(message)
            return channel.receive()

        yield echo
        channel.close()


def _send(to: connection.Connection, message: Message) -> None:
    to.send_bytes(_header(message))
    for part in message["body"]:
        to.send_bytes(part.data)


def _receive(source: connection.Connection) -> Message:
    message = json.loads(source.recv_bytes())
    message["body"] = [np.empty(size, dtype) for dtype, size in message["body"]]
    for part in message["body"]:
        source.recv_bytes_into(part.data)
    return message


def serve_multiprocessing(parent: Any, key: bytes) -> None:
    """Echoes what comes over ``multiprocessing.connection``."""
    with connection.Listener(family="AF_UNIX", authkey=key) as listener:
        parent.send(listener.address)
        accepted = listener.accept()
        with suppress(EOFError):
            while True:
                _send(accepted, _receive(accepted))


@contextmanager
def with_multiprocessing() -> Iterator[Echo]:
    """``multiprocessing.connection``: authenticated and framed, the elements received where they stay."""
    key = secrets.token_bytes(32)
    with (
        _server(serve_multiprocessing, key) as address,
        connection.Client(address, "AF_UNIX", authkey=key) as client,
    ):

        def echo(message: Message) -> Message:
            _send(client, message)
            return _receive(client)

        yield echo


_LENGTH = struct.Struct("!I")
_GRPC_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def _packed(message: Message) -> bytes:
    header = _header(message)
    return b"".join([_LENGTH.pack(len(header)), header, *(part.data for part in message["body"])])


def _unpacked(received: bytes) -> Message:
    (length,) = _LENGTH.unpack_from(received)
    place = _LENGTH.size + length
    message = json.loads(received[_LENGTH.size : place])
    body = []
    for dtype, size in message["body"]:
        body.append(np.frombuffer(received, dtype, size, place))
        place += body[-1].nbytes
    message["body"] = body
    return message


def serve_grpc(parent: Any, address: str) -> None:
    """Echoes what comes over gRPC."""
    echo = grpc.unary_unary_rpc_method_handler(
        lambda message, _: message, request_deserializer=_unpacked, response_serializer=_packed
    )
    server = grpc.server(ThreadPoolExecutor(1), options=_GRPC_OPTIONS)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("channel", {"echo": echo})])
    server.add_insecure_port(address)
    server.start()
    parent.send(address)
    server.wait_for_termination()


@contextmanager
def with_grpc() -> Iterator[Echo]:
    """A unary call of grpcio on a unix socket."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _server(serve_grpc, f"unix:{folder}/socket") as address,
        grpc.insecure_channel(address, options=_GRPC_OPTIONS) as channel,
    ):
        yield channel.unary_unary(
            "/channel/echo", request_serializer=_packed, response_deserializer=_unpacked
        )


CHANNELS = {
    "hand_written": hand_written,
    "multiprocessing": with_multiprocessing,
    "grpc": with_grpc,
}
