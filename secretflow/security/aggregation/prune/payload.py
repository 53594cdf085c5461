"""What travels between the actors: plain dictionaries of builtins and numpy arrays.

Nothing else, so that a deployment that lists what may be unpickled between parties needs no entry for us.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from .errors import AggregationError


class Payload(TypedDict):
    """One party's padded numbers, or the sum of all parties'.

    Attributes:
        call: number of the call, the same for all parties.
        frame: digest of the frame, under the parties' key if the server is blind.
        encoding: what the ring elements mean.
        body: one-dimensional arrays of ring elements.
    """

    call: int
    frame: str
    encoding: str
    body: list[np.ndarray]


def add_up(payloads: list[Payload]) -> Payload:
    """Adds payloads of one call.

    Args:
        payloads: at least two; they stay as they are.

    Raises:
        AggregationError: they differ in call, frame, encoding or size; nothing is added then.
    """
    first, *others = payloads
    for other in others:
        for field in ("call", "frame", "encoding"):
            if other[field] != first[field]:
                raise AggregationError(
                    f"the parties' payloads differ in {field}: {first[field]!r} and "
                    f"{other[field]!r}; shapes, types, masks and weights must be those of one "
                    "call at all parties"
                )
        sizes = [part.size for part in first["body"]], [part.size for part in other["body"]]
        if sizes[0] != sizes[1]:
            raise AggregationError(f"the parties' payloads differ in size: {sizes[0]} and {sizes[1]}")
    second, *rest = others
    body = [part + own for part, own in zip(first["body"], second["body"], strict=True)]
    for other in rest:
        for total, part in zip(body, other["body"], strict=True):
            np.add(total, part, out=total)
    return Payload(call=first["call"], frame=first["frame"], encoding=first["encoding"], body=body)
