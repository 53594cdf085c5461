"""What travels between the actors: plain dictionaries of builtins and numpy arrays.

Nothing else, so that a deployment that lists what may be unpickled between parties needs no entry for us.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from .errors import AggregationError
from .lanes import pack, unpack

PACKED = 2
"""The position in the body of the part whose elements may be packed."""


class _Whole(TypedDict):
    call: int
    layout: str
    encoding: str
    body: list[np.ndarray]


class Message(_Whole, total=False):
    """One party's padded numbers, or the sum of all parties'.

    Attributes:
        call: number of the call, the same for all parties.
        layout: digest of the layout, under the parties' key if the server is blind.
        encoding: what the ring elements mean.
        body: one-dimensional arrays of ring elements.
        lane_bits: if ``body[PACKED]`` is packed, the bits of its elements, see :func:`~.lanes.pack`.
    """

    lane_bits: int


def unpacked(message: Message, lanes: int | None = None) -> Message:
    """A message without packed elements.

    Args:
        message: stays as it is.
        lanes: how many elements were packed; None keeps the zeros that there may be behind them.
    """
    if "lane_bits" not in message:
        return message
    body = list(message["body"])
    body[PACKED] = unpack(body[PACKED], message["lane_bits"])[:lanes]
    return Message(call=message["call"], layout=message["layout"], encoding=message["encoding"], body=body)


def add_up(messages: list[Message]) -> Message:
    """Adds messages of one call.

    Args:
        messages: at least two; they stay as they are.

    Raises:
        AggregationError: they differ in call, layout, encoding or size; nothing is added then.
    """
    first, *others = messages
    for other in others:
        for field in ("call", "layout", "encoding", "lane_bits"):
            if other.get(field) != first.get(field):
                raise AggregationError(
                    f"the parties' messages differ in {field}: {first.get(field)!r} and "
                    f"{other.get(field)!r}; shapes, types, masks and weights must be those of one "
                    "call at all parties"
                )
        sizes = [part.size for part in first["body"]], [part.size for part in other["body"]]
        if sizes[0] != sizes[1]:
            raise AggregationError(f"the parties' messages differ in size: {sizes[0]} and {sizes[1]}")
    second, *rest = others
    own, body = unpacked(first)["body"], unpacked(second)["body"]
    body = [part + other for part, other in zip(own, body, strict=True)]
    for other in rest:
        for total, part in zip(body, unpacked(other)["body"], strict=True):
            np.add(total, part, out=total)
    summed = Message(call=first["call"], layout=first["layout"], encoding=first["encoding"], body=body)
    if "lane_bits" in first:
        summed["lane_bits"] = first["lane_bits"]
        body[PACKED] = pack(body[PACKED], first["lane_bits"])
    return summed
