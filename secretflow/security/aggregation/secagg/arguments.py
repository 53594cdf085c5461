"""What a user gives an aggregator for each party, put in the order of the parties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from secretflow.device import PYU, DeviceObject, PYUObject

from .errors import AggregationError

_MAX_PARTIES = 255  # contributor counts travel as one byte


def check_participants(participants: Sequence[PYU]) -> None:
    """Refuses parties that cannot aggregate.

    Raises:
        AggregationError: one is there twice, or they are too few or too many.
    """
    if len(set(participants)) != len(participants):
        raise AggregationError(f"participants={participants}: Should not have duplicated devices.")
    if not 2 <= len(participants) <= _MAX_PARTIES:
        raise AggregationError(f"participants must be from 2 to {_MAX_PARTIES} parties, got {participants}")


def by_party(objects: Sequence[PYUObject], name: str, parties: Sequence[PYU]) -> dict[PYU, PYUObject]:
    """One object for each party, by party.

    Args:
        objects: in any order.
        name: of the argument, for messages.
        parties: who takes part.

    Raises:
        AggregationError: they are not one for each party.
    """
    if not objects:
        raise AggregationError(f"{name}: The data should not be None or empty.")
    if len(objects) != len(parties):
        raise AggregationError(
            f"{name}: Length of the data not equals devices: {len(objects)} vs {len(parties)}"
        )
    found = {item.device: item for item in objects}
    if set(found) != set(parties):
        raise AggregationError(
            f"{name}: Devices of the data must be corresponding with this aggregator: "
            f"{sorted(map(str, found))} vs {sorted(map(str, parties))}"
        )
    return found


def weights_by_party(weights: Any, data: Sequence[PYUObject], parties: Sequence[PYU]) -> dict[PYU, Any]:
    """Everybody's weight, in the order of the parties; empty for equal ones.

    Args:
        weights: one for each of ``data``, a number for all, or None.
        data: one object for each party.
        parties: who takes part.

    Raises:
        AggregationError: they are neither, or one is at another party than its data.
    """
    if weights is None or isinstance(weights, (int, float, np.number)):
        return {}
    if not hasattr(weights, "__len__"):
        raise AggregationError(f"weights must be one for each party, a number or None, got {weights!r}")
    if len(weights) != len(data):
        raise AggregationError(f"Length of the weights not equals data: {len(weights)} vs {len(data)}.")
    found = {}
    for weight, datum in zip(weights, data, strict=True):
        if isinstance(weight, DeviceObject) and weight.device != datum.device:
            raise AggregationError("Device of weight is not same with the corresponding data.")
        found[datum.device] = weight
    return {party: found[party] for party in parties}
