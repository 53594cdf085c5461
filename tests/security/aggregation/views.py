"""One round as the server sees it, with pads and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.secagg import keyring as keyring_module
from secretflow.security.aggregation.secagg.message import Message, add_up
from secretflow.security.aggregation.secagg.pads import Pads
from tests.security.aggregation.stepwise import Stepwise

MakeClients = Callable[..., list[Stepwise]]
Body = list[np.ndarray]


class Round:
    """One agreement about masks and one average, as bare clients run them, with all that is uploaded."""

    def __init__(
        self,
        clients: Sequence[Stepwise],
        data: Sequence[list[np.ndarray]],
        masks: Sequence[list[Any]] | None = None,
        weights: Sequence[float] = (),
    ) -> None:
        self.proposals: list[Message] = []
        if masks is not None:
            self.proposals = [
                client.propose(1, x, mask) for client, x, mask in zip(clients, data, masks, strict=True)
            ]
            self.counts = add_up(self.proposals)
            for client in clients:
                client.settle(self.counts)
        self.messages = [
            (client.average if masks is None else client.sparse_average)(2, x, *weights)
            for client, x in zip(clients, data, strict=True)
        ]
        self.total = add_up(self.messages)

    def uploads(self) -> list[Body]:
        """The bodies of everything uploaded, proposals first."""
        return [message["body"] for message in (*self.proposals, *self.messages)]


def bits(bodies: Sequence[Body]) -> list[list[bytes]]:
    return [[part.tobytes() for part in body] for body in bodies]


class NoPads(Pads):
    def draw(self, size: int, dtype: np.dtype) -> np.ndarray:
        return np.zeros(size, dtype)


def without_pads(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Round]) -> Round:
    with monkeypatch.context() as patch:
        patch.setattr(keyring_module, "Pads", NoPads)
        return run()
