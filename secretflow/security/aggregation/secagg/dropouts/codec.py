"""Messages as bytes: a header in JSON, of which every field is checked, then ring elements as in memory.

Nothing is unpickled. What comes from elsewhere is either a message of :mod:`.wire` or an error.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from ..errors import AggregationError
from ..keys import KEY_BYTES
from ..message import Message
from .wire import (
    Again,
    Announcement,
    Bye,
    Codes,
    Declined,
    Dropped,
    Ended,
    Hello,
    Letters,
    Lost,
    Members,
    PaddedHalf,
    PadKeys,
    Regroup,
    Release,
    Report,
    Reports,
    ToParty,
    ToServer,
    Total,
    Upload,
)

_Kind = TypeVar("_Kind")
_LENGTH = struct.Struct("!I")
_MOST_HEADER_BYTES = 1 << 20
_MOST_NAME = 256
_MOST_SECRET_BYTES = 1 << 10
_DTYPES = ("|u1", "<u2", "<u4", "<u8")
"""Of ballots, and of the elements of both rings."""


def encode(message: ToServer | ToParty) -> bytes:
    """A message as bytes."""
    fields: dict[str, Any]
    body: list[np.ndarray] = []
    if isinstance(message, (Upload, PaddedHalf, Total)):
        held = message.message
        body = held["body"]
        fields = {key: held[key] for key in ("call", "layout", "encoding")}
        fields["body"] = [(part.dtype.str, part.size) for part in body]
        if isinstance(message, Total):
            fields.update(sealed=message.sealed.hex(), comers=message.comers)
    elif isinstance(message, PadKeys):
        fields = {"call": message.call, "subtracted": [subtracted for _, subtracted in message.keys]}
        fields.update(sealed=message.sealed.hex(), comers=message.comers)
        body = [np.frombuffer(b"".join(key for key, _ in message.keys), np.uint8)]
    elif isinstance(message, (Report, Reports)):
        bodies = {"": message.body} if isinstance(message, Report) else message.bodies
        fields = {"call": message.call, "sizes": [(name, len(held)) for name, held in bodies.items()]}
        body = [np.frombuffer(held, np.uint8) for held in bodies.values()]
    else:
        fields = {key: _plain(value) for key, value in vars(message).items()}
    text = json.dumps({"kind": type(message).__name__, **fields}).encode()
    return b"".join([_LENGTH.pack(len(text)), text, *(part.tobytes() for part in body)])


def decode_at_server(data: bytes) -> ToServer:
    """The message of a party.

    Raises:
        AggregationError: it is none.
    """
    return _decode(data, _TO_SERVER)


def decode_at_party(data: bytes) -> ToParty:
    """The message of the server.

    Raises:
        AggregationError: it is none.
    """
    return _decode(data, _TO_PARTY)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {name: held.hex() for name, held in value.items()}
    return value


def _decode(data: bytes, kinds: Mapping[str, Callable[[_Fields], _Kind]]) -> _Kind:
    try:
        (length,) = _LENGTH.unpack_from(data)
        if length > _MOST_HEADER_BYTES:
            raise _MalformedError(f"a header of {length} bytes")
        header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
        kind = kinds[header.pop("kind")]
        fields = _Fields(header, memoryview(data)[_LENGTH.size + length :])
        message = kind(fields)
        fields.check_that_all_was_read()
    except _MalformedError as error:
        raise AggregationError(f"what came over the network is no message: {error}") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AggregationError(f"what came over the network is no message: {type(error).__name__}") from None
    return message


class _MalformedError(Exception):
    """Why bytes are no message."""


class _Fields:
    """The fields of a header, each read once and checked.

    Args:
        header: what JSON gave.
        rest: what follows the header.
    """

    def __init__(self, header: dict[str, Any], rest: memoryview) -> None:
        self._header = header
        self._rest = rest

    def number(self, key: str) -> int:
        """An integer in [0, 2^64)."""
        value = self._header.pop(key)
        self._check(key, type(value) is int and 0 <= value < 2**64)
        return int(value)

    def text(self, key: str, most: int = 4096) -> str:
        """One line that a log may show: nothing in it moves a cursor or looks like a line of its own."""
        value = self._header.pop(key)
        self._check(key, isinstance(value, str) and len(value) <= most and value.isprintable())
        return str(value)

    def truth(self, key: str) -> bool:
        value = self._header.pop(key)
        self._check(key, isinstance(value, bool))
        return bool(value)

    def names(self, key: str) -> tuple[str, ...]:
        value = self._header.pop(key)
        self._check(key, isinstance(value, list) and all(isinstance(name, str) for name in value))
        self._check(key, all(len(name) <= _MOST_NAME and name.isprintable() for name in value))
        return tuple(value)

    def secret(self, key: str) -> bytes:
        return self._secret(key, self._header.pop(key))

    def secrets(self, key: str) -> dict[str, bytes]:
        value = self._header.pop(key)
        self._check(key, isinstance(value, dict) and all(len(name) <= _MOST_NAME for name in value))
        return {name: self._secret(key, held) for name, held in value.items()}

    def message(self) -> Message:
        """The ring elements, and what is said about them."""
        call, layout, encoding = self.number("call"), self.text("layout"), self.text("encoding")
        body = []
        for dtype, size in self._header.pop("body"):
            self._check("body", dtype in _DTYPES and type(size) is int and size >= 0)
            size_bytes = size * np.dtype(dtype).itemsize
            self._check("body", size_bytes <= len(self._rest))
            body.append(np.frombuffer(self._rest[:size_bytes], dtype))
            self._rest = self._rest[size_bytes:]
        return Message(call=call, layout=layout, encoding=encoding, body=body)

    def pad_keys(self) -> tuple[tuple[bytes, bool], ...]:
        """Keys, each with whether its pad is subtracted."""
        value = self._header.pop("subtracted")
        self._check("subtracted", isinstance(value, list) and all(isinstance(each, bool) for each in value))
        self._check("subtracted", len(value) * KEY_BYTES == len(self._rest))
        keys, self._rest = bytes(self._rest), self._rest[:0]
        return tuple((keys[k * KEY_BYTES : (k + 1) * KEY_BYTES], each) for k, each in enumerate(value))

    def bodies(self) -> dict[str, bytes]:
        """What parties have reported, by sender."""
        found: dict[str, bytes] = {}
        for name, size in self._header.pop("sizes"):
            well = isinstance(name, str) and len(name) <= _MOST_NAME and name not in found
            self._check("sizes", well and type(size) is int and 0 <= size <= len(self._rest))
            found[name] = bytes(self._rest[:size])
            self._rest = self._rest[size:]
        return found

    def body(self) -> bytes:
        """What one party has reported."""
        (found,) = self.bodies().values()
        return found

    def check_that_all_was_read(self) -> None:
        if self._header or self._rest:
            raise _MalformedError("it has more than it must")

    def _secret(self, key: str, value: Any) -> bytes:
        self._check(key, isinstance(value, str) and len(value) <= 2 * _MOST_SECRET_BYTES)
        return bytes.fromhex(value)

    @staticmethod
    def _check(key: str, well: bool) -> None:
        if not well:
            raise _MalformedError(f"{key} is not what it must be")


_TO_SERVER: dict[str, Callable[[_Fields], ToServer]] = {
    "Hello": lambda f: Hello(f.number("call"), f.number("passed"), f.number("held")),
    "Bye": lambda f: Bye(f.number("call")),
    "Report": lambda f: Report(f.number("call"), f.body()),
    "Letters": lambda f: Letters(f.secrets("letters"), f.number("call")),
    "Upload": lambda f: Upload(f.message()),
    "Codes": lambda f: Codes(f.number("call"), f.secrets("codes")),
    "Declined": lambda f: Declined(f.number("call")),
    "Release": lambda f: Release(f.number("call"), f.secret("seed"), f.truth("sealed"), f.secrets("keys")),
}

_TO_PARTY: dict[str, Callable[[_Fields], ToParty]] = {
    "Members": lambda f: Members(f.names("names"), f.number("call"), f.names("behind"), f.number("passed")),
    "Regroup": lambda f: Regroup(f.number("call")),
    "Reports": lambda f: Reports(f.number("call"), f.bodies()),
    "Letters": lambda f: Letters(f.secrets("letters"), f.number("call")),
    "Announcement": lambda f: Announcement(f.number("call"), f.names("survivors")),
    "Codes": lambda f: Codes(f.number("call"), f.secrets("codes")),
    "Again": lambda f: Again(f.number("call"), f.names("roster")),
    "PaddedHalf": lambda f: PaddedHalf(f.message()),
    "PadKeys": lambda f: PadKeys(f.number("call"), f.pad_keys(), f.secret("sealed"), f.truth("comers")),
    "Total": lambda f: Total(f.message(), f.secret("sealed"), f.truth("comers")),
    "Lost": lambda f: Lost(f.number("call"), f.names("roster")),
    "Dropped": lambda f: Dropped(f.number("call")),
    "Ended": lambda f: Ended(f.number("call"), f.text("reason"), f.truth("too_few")),
}
