"""What travels between the actors: plain dictionaries of builtins and numpy arrays.

Nothing else, so that a deployment that lists what may be unpickled between parties needs no entry for us.
"""

from __future__ import annotations

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


def add_up(messages: list[Message]) -> Message:
    """Adds messages of one call.

    Args:
        messages: at least two; they stay as they are.

    Raises:
        AggregationError: they differ in call, layout, encoding or size; nothing is added then.
    """
    first, *others = messages
    for other in others:
        for field in ("call", "layout", "encoding"):
            if other[field] != first[field]:
                raise AggregationError(
                    f"the parties' messages differ in {field}: {first[field]!r} and "
                    f"{other[field]!r}; shapes, types, masks and weights must be those of one "
                    "call at all parties"
                )
        sizes = [part.size for part in first["body"]], [part.size for part in other["body"]]
        if sizes[0] != sizes[1]:
            raise AggregationError(f"the parties' messages differ in size: {sizes[0]} and {sizes[1]}")
    second, *rest = others
    body = [part + own for part, own in zip(first["body"], second["body"], strict=True)]
    for other in rest:
        for total, part in zip(body, other["body"], strict=True):
            np.add(total, part, out=total)
    return Message(call=first["call"], layout=first["layout"], encoding=first["encoding"], body=body)
