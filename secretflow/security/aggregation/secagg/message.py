"""What travels between the actors: plain dictionaries of builtins and numpy arrays.

Nothing else, so that a deployment that lists what may be unpickled between parties needs no entry for us.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np

from .errors import AggregationError
from .lanes import pack, unpack
from .pads import Pads

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


def add_up(messages: Iterable[Message]) -> Message:
    """Adds messages of one call, each as it comes: no more than one is held beside the sum.

    Args:
        messages: at least two; they stay as they are.

    Raises:
        AggregationError: they differ in call, layout, encoding, size or dtype.
    """
    coming = iter(messages)
    first, second = next(coming), next(coming)
    kind, lane_bits = _kind(first), first.get("lane_bits")
    _check_alike(kind, second)
    pairs = zip(unpacked(first)["body"], unpacked(second)["body"], strict=True)
    body = [part + own for part, own in pairs]
    total = Message(call=first["call"], layout=first["layout"], encoding=first["encoding"], body=body)
    del first, second, pairs
    for other in coming:
        _check_alike(kind, other)
        for part, own in zip(body, unpacked(other)["body"], strict=True):
            np.add(part, own, out=part)
        del other  # before the next one comes
    if lane_bits is not None:
        total["lane_bits"] = lane_bits
        body[PACKED] = pack(body[PACKED], lane_bits)
    return total


def take_pads_off(total: Message, keys: Sequence[tuple[bytes, bool]]) -> None:
    """Takes pads off a sum, in place.

    Args:
        total: a sum of uploads.
        keys: of the pads on it, each with whether its pad is subtracted to take it off.
    """
    pads = Pads(keys, total["call"])
    for part in total["body"]:
        pads.add_to(part)


def _kind(message: Message) -> dict[str, object]:
    """What all messages of one call have in common."""
    fields: dict[str, object] = {
        field: message.get(field) for field in ("call", "layout", "encoding", "lane_bits")
    }
    body = message["body"]
    return {**fields, "size": [part.size for part in body], "dtype": [part.dtype.str for part in body]}


def _check_alike(kind: Mapping[str, object], other: Message) -> None:
    for field, own in _kind(other).items():
        if own != kind[field]:
            raise AggregationError(
                f"the parties' messages differ in {field}: {kind[field]!r} and {own!r}; shapes, types, "
                "masks and weights must be those of one call at all parties"
            )
