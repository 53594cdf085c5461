"""What a user gives an aggregator for each party, put in the order of the parties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from secretflow import _validate
from secretflow.device import PYU, DeviceObject, PYUObject

from .errors import AggregationError
from .identity import Identities
from .rules import MOST_PARTIES


def check_members(
    device: PYU, participants: Sequence[PYU], server_blind: bool, identities: Identities | None
) -> None:
    """Refuses a server and parties that cannot aggregate.

    Args:
        device: the server.
        participants: the parties.
        server_blind: whether the server shall not learn the sum.
        identities: who the parties are.

    Raises:
        AggregationError: a party is there twice, or they are too few or too many.
        TypeError: something is of another type.
        ValueError: the server shall be blind and is a participant.
    """
    _validate.instance("device", device, PYU, "a PYU, the server")
    pyus = isinstance(participants, (list, tuple)) and all(isinstance(p, PYU) for p in participants)
    _validate.check(pyus, "participants", participants, "a list of PYU, the parties", TypeError)
    _validate.flag("server_blind", server_blind)
    _validate.instance("identities", identities, (Identities, type(None)), "Identities or None")
    told = f"False where device={device} is a participant and has the key"
    _validate.check(not (server_blind and device in participants), "server_blind", server_blind, told)
    if len(set(participants)) != len(participants):
        raise AggregationError(
            f"participants must be different parties (Should not have duplicated devices), got {participants}"
        )
    if not 2 <= len(participants) <= MOST_PARTIES:
        raise AggregationError(
            f"participants must be from 2 to {MOST_PARTIES} parties, got {len(participants)}"
        )


def by_party(objects: Sequence[PYUObject], name: str, parties: Sequence[PYU]) -> dict[PYU, PYUObject]:
    """One object for each party, by party.

    Args:
        objects: in any order.
        name: of the argument, for messages.
        parties: who takes part.

    Raises:
        AggregationError: they are not one for each party.
    """
    if objects is None or (hasattr(objects, "__len__") and not len(objects)):
        raise AggregationError(
            f"{name} must be one object for each party (The data should not be None or empty), got {objects}"
        )
    if not hasattr(objects, "__len__") or not all(isinstance(item, DeviceObject) for item in objects):
        raise AggregationError(
            f"{name} must be one object for each party, as alice(function)() gives one at alice, got "
            f"a {type(objects).__name__} of something else"
        )
    if len(objects) != len(parties):
        raise AggregationError(
            f"{name} must be one object for each party (Length of the data not equals devices: "
            f"{len(objects)} vs {len(parties)}), got {objects}"
        )
    found = {item.device: item for item in objects}
    if set(found) != set(parties):
        raise AggregationError(
            f"{name} must be of the parties {sorted(map(str, parties))} (Devices of the data must be "
            f"corresponding with this aggregator), got {sorted(map(str, found))}"
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
        raise AggregationError(
            f"weights must be one for each of data (Length of the weights not equals data: {len(weights)} vs "
            f"{len(data)}), got {len(weights)}"
        )
    found = {}
    for weight, datum in zip(weights, data, strict=True):
        if isinstance(weight, DeviceObject) and weight.device != datum.device:
            raise AggregationError(
                f"weights must be where their data are (Device of weight is not same with the corresponding "
                f"data), at {datum.device}, got one at {weight.device}"
            )
        found[datum.device] = weight
    return {party: found[party] for party in parties}
