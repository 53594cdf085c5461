"""Weights that stay at their parties: everybody learns the total, and how many hold enough to hide others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .client import Client
from .errors import AggregationError
from .protocol import Exchanges, add_up
from .weights import AggregationWeights, checked, counts

WEIGHING_EXCHANGES = 2
"""How many messages each party sends in :func:`weigh` and in :func:`weigh_rounds`."""

_FRACTION = 2.0**53  # the fractions of 1000 parties add up in int64


def weigh(client: Client, own: object) -> Exchanges[AggregationWeights]:
    """Weighs one average.

    Args:
        client: of this party.
        own: own weight, a number or an array, of one shape at all parties.

    Raises:
        AggregationError: the weight is not allowed, or all are 0.
    """
    weight = checked(own, "weights")
    whole = np.floor(weight)
    fraction = (weight - whole) * _FRACTION
    is_float = np.full(weight.shape, weight.dtype.kind == "f")
    parts = np.stack([np.asarray(part).astype(np.int64) for part in (whole, fraction, is_float)])
    wholes, fractions, floats = yield from add_up(client, parts)
    exact = not floats.any()
    total = wholes if exact else wholes + fractions / _FRACTION
    if not np.all(total > 0):
        raise AggregationError("weights must add up to more than 0 at every element, got 0")
    enough = counts(weight, total, client.present(), client.rules)
    counting = yield from add_up(client, enough.astype(np.int64))
    fewest = int(np.min(counting))
    return AggregationWeights(weight[()], total[()], client.present(), exact, enough, fewest, object())


def weigh_rounds(client: Client, rows: Sequence[int]) -> Exchanges[list[AggregationWeights]]:
    """Weighs each round of an epoch by rows.

    Args:
        client: of this party.
        rows: on how many this party trains in each round.

    Returns:
        For each round its weights; those of rounds in which all weigh as in the first are one object.

    Raises:
        AggregationError: too few parties train on enough rows.
    """
    own = np.asarray(rows, np.int64)
    totals = yield from add_up(client, own)
    rules = client.rules
    # Over all rounds, so that it is the same in each.
    enough = bool(counts(own, totals, client.present(), rules).all())
    bits = np.stack([np.full(own.size, enough), own != own[0]]).astype(np.int64)
    counting, others = yield from add_up(client, bits)
    parties = client.present()
    found: list[AggregationWeights] = []
    for k in range(own.size):
        if found and not others[k]:
            found.append(found[0])
        else:
            fewest = int(counting[k])
            found.append(AggregationWeights(own[k], totals[k], parties, True, enough, fewest, object()))
    for weights in found:
        weights.check_counting(rules, masked=True)
    return found
