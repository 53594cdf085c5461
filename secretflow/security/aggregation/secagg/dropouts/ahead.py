"""Sums that travel while the parties agree to open them.

One half goes behind the announcement, the other one behind the codes, so each hides one of the two exchanges
that follow. If the sum takes ``T`` seconds and a message with its answer ``R``, what takes the pads off comes
``max(2 * R, T)`` seconds after the announcement, as two answers must be waited for and the sum must travel:
nothing could be sooner. No message has to overtake another one, and nobody has to know how fast a link is.
"""

from __future__ import annotations

import numpy as np

from ..errors import AggregationError
from ..message import Message, take_pads_off
from .wire import PaddedHalf, PadKeys, ToParty, Total


def halves(message: Message) -> tuple[PaddedHalf, PaddedHalf]:
    """The first and the second half of each array of a sum; they share its memory."""
    body = message["body"]
    first = [part[: part.size // 2] for part in body]
    second = [part[part.size // 2 :] for part in body]
    return PaddedHalf({**message, "body": first}), PaddedHalf({**message, "body": second})


class SumAhead:
    """The sum of one call as it comes, with all pads on it.

    It takes no secret of the party to open it. It is forgotten with the call, however that ends.

    Args:
        own: what this party has uploaded, which the sum must be like.
        most_keys: how many pads there may be to take off.
    """

    def __init__(self, own: Message, most_keys: int) -> None:
        self._call = own["call"]
        self._expected = [_kind(half) for half in halves(own)]
        self._most_keys = most_keys
        self._came: list[PaddedHalf] = []

    def takes(self, answer: ToParty) -> bool:
        """Puts a half aside.

        Args:
            answer: of the server.

        Returns:
            Whether it is one of this call.

        Raises:
            AggregationError: it is not the next half of a sum of what this party has uploaded.
        """
        if not isinstance(answer, PaddedHalf) or answer.call != self._call:
            return False
        place = len(self._came)
        if place == len(self._expected) or _kind(answer) != self._expected[place]:
            raise AggregationError(
                f"the server must send the two halves of a sum of what was uploaded in call {self._call}, "
                f"got another layout or size in place of half {place + 1}"
            )
        self._came.append(answer)
        return True

    def opened(self, keys: PadKeys) -> Total:
        """The sum without the pads, as a server that takes them off sends it.

        Raises:
            AggregationError: the sum of that call has not come, or there are no keys or too many.
        """
        if keys.call != self._call or len(self._came) < len(self._expected):
            raise AggregationError(
                f"the sum of call {keys.call} must come before what takes its pads off, got "
                f"{len(self._came)} halves of that of call {self._call}"
            )
        if not 1 <= len(keys.keys) <= self._most_keys:
            raise AggregationError(f"1 to {self._most_keys} pads must be on a sum, got {len(keys.keys)}")
        first, second = (half.message for half in self._came)
        body = [np.concatenate(parts) for parts in zip(first["body"], second["body"], strict=True)]
        total = Message(call=self._call, layout=first["layout"], encoding=first["encoding"], body=body)
        take_pads_off(total, keys.keys)
        return Total(total, keys.sealed, keys.comers)


def _kind(half: PaddedHalf) -> tuple[object, ...]:
    """What a half of the sum has in common with that of an upload."""
    message = half.message
    body = [(part.dtype.str, part.size) for part in message["body"]]
    return message["layout"], message["encoding"], body
