"""What travels between the actors: plain dictionaries of builtins and numpy arrays.

Nothing else, so that a deployment that lists what may be unpickled between parties needs no entry for us.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

import numpy as np

from .errors import AggregationError


class Message(TypedDict):
    """One party's padded numbers, or the sum of all parties'.

    Attributes:
        call: number of the call, the same for all parties.
        layout: digest of the layout, under the parties' key if the server is blind.
        encoding: what the ring elements mean.
        body: one-dimensional arrays of ring elements.
    """

    call: int
    layout: str
    encoding: str
    body: list[np.ndarray]


def add_up(messages: Iterable[Message]) -> Message:
    """Adds messages of one call, each as it comes: no more than one is held beside the sum.

    Args:
        messages: at least two; they stay as they are.

    Raises:
        AggregationError: they differ in call, layout, encoding or size.
    """
    coming = iter(messages)
    first, second = next(coming), next(coming)
    _check_alike(first, second)
    body = [part + own for part, own in zip(first["body"], second["body"], strict=True)]
    total = Message(call=first["call"], layout=first["layout"], encoding=first["encoding"], body=body)
    del first, second
    for other in coming:
        _check_alike(total, other)
        for part, own in zip(body, other["body"], strict=True):
            np.add(part, own, out=part)
        del other  # before the next one comes
    return total


def _check_alike(one: Message, other: Message) -> None:
    for field in ("call", "layout", "encoding"):
        if other[field] != one[field]:
            raise AggregationError(
                f"the parties' messages differ in {field}: {one[field]!r} and "
                f"{other[field]!r}; shapes, types, masks and weights must be those of one "
                "call at all parties"
            )
    sizes = [part.size for part in one["body"]], [part.size for part in other["body"]]
    if sizes[0] != sizes[1]:
        raise AggregationError(f"the parties' messages differ in size: {sizes[0]} and {sizes[1]}")
