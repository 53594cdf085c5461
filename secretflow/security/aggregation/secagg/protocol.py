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
from .weights import AggregationWeights

_Result = TypeVar("_Result")

Exchanges: TypeAlias = Generator[Message, Message, _Result]
"""Messages for the server, each answered by the sum of all parties' messages; then a result."""


def agree_on_support(
    client: Client,
    data: Any,
    mask: ArrayMasks,
    within: Support | None = None,
    uncounted: int = 0,
) -> Exchanges[Support]:
    """Agrees with the others on the elements that travel.

    Args:
        client: of this party.
        data: own arrays.
        mask: own mask.
        within: as for :meth:`~.client.Client.propose`.
        uncounted: as for :meth:`~.client.Client.settle`.
    """
    total = yield client.propose(client.next_call(), data, mask, within)
    return client.settle(total, uncounted)


def average_into(
    client: Client,
    arrays: Sequence[np.ndarray],
    data: Any,
    weights: AggregationWeights | None = None,
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
    total = yield client.upload(Call(client.next_call(), Operation.AVERAGE, weights, support), data)
    client.open_into(total, arrays)


def add_up(client: Client, own: np.ndarray) -> Exchanges[np.ndarray]:
    """Adds up integers; nobody learns more than the sum, and a server that changes it is found out.

    Args:
        client: of this party.
        own: int64, of one shape at all parties.

    Returns:
        int64.

    Raises:
        DisagreementError: the sum was changed on its way, or the parties were not told the same before.
    """
    total = yield client.upload_integers(client.next_call(), own)
    return client.open_integers(total)


def confirm(client: Client, what: bytes) -> Exchanges[None]:
    """Looks whether all parties mean the same.

    Args:
        client: of this party.
        what: what they must have in common.

    Raises:
        DisagreementError: they do not.
    """
    client.transcript.mix(what)
    yield from add_up(client, np.empty(0, np.int64))
