"""Three parties' numbers, their uploads and their average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import secretflow as sf
from tests.security.aggregation.stepwise import Stepwise as Client

MakeClients = Callable[..., list[Client]]
VALUES = [np.array([1.0, 2.0, 3.0]), np.array([3.0, 4.0, 8.0]), np.array([2.0, 3.0, 1.0])]
AVERAGE = [2.0, 3.0, 4.0]


def uploads(clients: list[Client], call: int, data: list[Any] | None = None) -> list[Any]:
    values = VALUES if data is None else data
    return [client.average(call, x) for client, x in zip(clients, values, strict=True)]


def assert_average(aggregator: Any, data: Any, masks: Any = None, expected: Any = AVERAGE) -> None:
    for result in sf.reveal(aggregator.average_at_parties(data, prune_mask=masks)).values():
        np.testing.assert_allclose(result, expected, atol=1e-5)
