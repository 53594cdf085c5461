"""Two ends of a channel, and messages to send over it."""

from __future__ import annotations

import numpy as np

from secretflow.security.aggregation.secagg.message import Message
from secretflow.security.aggregation.secagg.transport.channel import Channel, Listener

Pair = tuple[Channel, Channel]


def make_pair() -> Pair:
    listener = Listener()
    one = Channel.to(listener.address)
    other = listener.accept()
    listener.close()
    return one, other


def message(*body: np.ndarray, call: int = 1) -> Message:
    return Message(call=call, layout="ab", encoding="sum ring=32", body=list(body))
