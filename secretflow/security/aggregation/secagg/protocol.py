"""The protocol between a client and the server, as generators.

One ``yield`` gives a message for the server, and what it is resumed with is the sum of all parties' messages.
Whoever drives a generator decides how messages travel; what is said is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from .call import Call, Operation
from .client import Client
from .inputs import ArrayMasks
from .message import Message
from .support import Support

_Result = TypeVar("_Result")

Exchanges: TypeAlias = Generator[Message, Message, _Result]
"""Messages for the server, each answered by the sum of all parties' messages; then a result."""


def agree_on_support(
    client: Client, data: Any, mask: ArrayMasks, within: Support | None = None
) -> Exchanges[Support]:
    """Agrees with the others on the elements that travel.

    Args:
        client: of this party.
        data: own arrays.
        mask: own mask.
        within: as for :meth:`~.client.Client.propose`.
    """
    total = yield client.propose(client.next_call(), data, mask, within)
    return client.settle(total)


def combine(
    client: Client,
    operation: Operation,
    data: Any,
    weights: Sequence[Any] = (),
    support: Support | None = None,
) -> Exchanges[Any]:
    """Adds up or averages with the others.

    Args:
        client: of this party.
        operation: which of the two.
        data: own arrays.
        weights: as for :class:`~.call.Call`.
        support: as for :class:`~.call.Call`.

    Returns:
        As :meth:`~.client.Client.open`, with the own data for what too few parties keep.
    """
    total = yield client.upload(Call(client.next_call(), operation, tuple(weights), support), data)
    return client.open(total, data)


def average_into(
    client: Client,
    arrays: Sequence[np.ndarray],
    data: Any,
    weights: Sequence[Any] = (),
    support: Support | None = None,
) -> Exchanges[None]:
    """Averages with the others, into arrays of the own.

    Args:
        client: of this party.
        arrays: as for :meth:`~.client.Client.open_into`.
        data: own arrays.
        weights: as for :class:`~.call.Call`.
        support: as for :class:`~.call.Call`.
    """
    total = yield client.upload(Call(client.next_call(), Operation.AVERAGE, tuple(weights), support), data)
    client.open_into(total, arrays)


def gather(client: Client, own: np.ndarray) -> Exchanges[np.ndarray]:
    """Tells everybody everybody's numbers.

    Args:
        client: of this party.
        own: integers, of one shape at all parties.

    Returns:
        One row for each party, in the order of the names, int64.
    """
    rows = np.zeros((client.parties, *own.shape), np.int64)
    rows[client.position] = own
    total = yield client.upload(Call(client.next_call(), Operation.SUM, is_round=False), rows)
    return client.open(total)
