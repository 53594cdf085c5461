"""The protocol between a client and the server, as generators.

One ``yield`` gives a message for the server, and what it is resumed with is the sum of all parties' messages.
Whoever drives a generator decides how messages travel; what is said is the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from .call import Call, Operation
from .client import Client
from .digests import digest_of_weights
from .errors import AggregationError
from .inputs import ArrayMasks
from .integers import LIMBS
from .message import Message
from .support import Support
from .updates import Sending, Updates
from .weights import AggregationWeights

_Result = TypeVar("_Result")

_MAGNITUDE_ONE = 2.0**40
_LARGEST_UPDATE = 2.0**13  # of 1,000 parties, in those units, the sum fits into 63 bits
_FRACTION = _NUMBERS_BELOW = 2.0**53  # likewise

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
    updates: Updates | None = None,
) -> Exchanges[None]:
    """Averages with the others, into arrays of the own.

    Args:
        client: of this party.
        arrays: as for :meth:`~.client.Client.open_into`.
        data: own arrays.
        weights: as for :class:`~.call.Call`.
        support: as for :class:`~.call.Call`.
        updates: what later updates are of; None if there are none.
    """
    total = yield client.upload(Call(client.next_call(), Operation.AVERAGE, weights, support), data)
    client.open_into(total, arrays, updates)


def average_updates_into(
    client: Client,
    arrays: Sequence[np.ndarray],
    updates: Updates,
    weights: AggregationWeights | None,
    support: Support,
    key: bytes,
) -> Exchanges[None]:
    """Averages with the others as :func:`average_into` does; what travels are rounded updates.

    Args:
        client: of this party.
        arrays: own arrays, changed in place.
        updates: of this party.
        weights: as for :class:`~.call.Call`.
        support: as for :class:`~.call.Call`.
        key: as for :class:`~.updates.Sending`.

    Raises:
        AggregationError: a number is not finite, or an update is 8,192 or more.
    """
    bounds = yield from _agree_on_bounds(client, updates.largest(arrays, support, client.party), updates)
    sending = Sending(updates, bounds, key)
    call = Call(client.next_call(), Operation.AVERAGE, weights, support, sending)
    total = yield client.upload(call, arrays)
    client.open_into(total, arrays, updates)


def _agree_on_bounds(client: Client, largest: Sequence[float], updates: Updates) -> Exchanges[list[float]]:
    for k, magnitude in zip(updates.which, largest, strict=True):
        if magnitude >= _LARGEST_UPDATE:
            raise AggregationError(
                f"data[{k}] of {client.party} must be within {_LARGEST_UPDATE:g} of the last average, got "
                f"{magnitude:g} from it; a lower learning rate may help"
            )
    own = np.array([math.ceil(magnitude * _MAGNITUDE_ONE) for magnitude in largest], np.int64)
    sums = yield from add_up(client, own)
    client.usage.count_agreement(own.nbytes * LIMBS)
    mean = sums / (_MAGNITUDE_ONE * client.present())
    return [client.rounding.bound(float(largest)) for largest in mean]


def add_up(client: Client, own: np.ndarray) -> Exchanges[np.ndarray]:
    """Adds up integers, and a server that changes the sum is found out.

    They are added in parts of 16 bits. Beside the sum, all learn the sum of each part, and so what was
    carried from one to the next.

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


def can_be_added(numbers: np.ndarray) -> bool:
    """Whether :func:`add_up_numbers` takes them: all are finite and below 2^53."""
    return bool(np.all(np.abs(numbers) < _NUMBERS_BELOW))


def add_up_numbers(client: Client, own: np.ndarray) -> Exchanges[np.ndarray]:
    """Adds up real numbers as :func:`add_up` does integers, their whole parts and their fractions.

    Args:
        client: of this party.
        own: float64, of one shape at all parties, all of which :func:`can_be_added`.

    Returns:
        float64, of each party within 2^-53 of its number.

    Raises:
        AggregationError: a number is not finite, or 2^53 or more. Nothing is uploaded then.
    """
    if not can_be_added(own):
        raise AggregationError(
            f"numbers must be finite and below 2^53 to be added up, got {own.shape} with others"
        )
    whole = np.floor(own)
    wholes, fractions = yield from add_up(
        client, np.stack([whole, (own - whole) * _FRACTION]).astype(np.int64)
    )
    return wholes + fractions / _FRACTION


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


def are_everybodys(client: Client, digests: Sequence[int]) -> Exchanges[np.ndarray]:
    """Which of some things all parties have the same of; of the others they learn the sum of the digests.

    Who is one of all but one that have the same learns the digest of the one, by which a guess of what it has
    can be confirmed.

    Args:
        client: of this party.
        digests: :data:`~.digests.DIGEST_BITS` bits each of what this party has, as many at all parties; of
            something that nobody else can have, random ones.

    Returns:
        bool, one for each.
    """
    own = np.array(digests, np.int64)
    return (yield from add_up(client, own)) == own * client.present()


def have_the_same(
    client: Client, arrays: Sequence[np.ndarray], support: Support | None, updates: Updates | None = None
) -> Exchanges[bool]:
    """Whether all parties have the same weights; with updates also, whether they contribute one last average.

    Args:
        client: of this party.
        arrays: own arrays.
        support: what travels.
        updates: of this party, where they travel. Weights that all have become their reference.
    """
    digests = [digest_of_weights(arrays)]
    if updates is not None:
        assert support is not None  # as it is settled before
        digests.append(updates.digest(arrays, support))
    weights, *average = yield from are_everybodys(client, digests)
    if weights and updates is not None:
        updates.take_all(arrays)
    return bool(weights or any(average))
