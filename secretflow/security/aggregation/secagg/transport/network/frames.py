"""Messages cut into frames, for a large one would hold up the keep-alive of its connection."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from ...errors import AggregationError

FRAME_BYTES = 1 << 20
MOST_MESSAGE_BYTES = 1 << 31
"""Of one message: a model of 500 million floats. Who sends more is not read on."""

_LENGTH = struct.Struct("!Q")


def cut(message: bytes) -> Iterator[bytes]:
    """The frames of a message."""
    whole = memoryview(_LENGTH.pack(len(message)) + message)
    for start in range(0, len(whole), FRAME_BYTES):
        yield bytes(whole[start : start + FRAME_BYTES])


def joined(frames: Iterable[bytes], most_bytes: int = MOST_MESSAGE_BYTES) -> Iterator[bytes]:
    """The messages that frames make up.

    Args:
        frames: as they come.
        most_bytes: of one message.

    Raises:
        AggregationError: a message is too long, or its frames are not what its length says.
    """
    held, wanted = bytearray(), 0
    for frame in frames:
        if not held:
            if len(frame) < _LENGTH.size:
                raise AggregationError("what came over the network is no message: a frame without a length")
            (length,) = _LENGTH.unpack_from(frame)
            if length > most_bytes:
                raise AggregationError(
                    f"a message must have at most {most_bytes} bytes, got one that says {length}"
                )
            wanted = _LENGTH.size + length
        held += frame
        if len(held) > wanted or len(frame) > FRAME_BYTES:
            raise AggregationError("what came over the network is no message: more came than its length")
        if len(held) == wanted:
            yield bytes(memoryview(held)[_LENGTH.size :])
            held = bytearray()
