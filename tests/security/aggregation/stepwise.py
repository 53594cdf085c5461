"""A client for tests that go through the protocol step by step."""

from __future__ import annotations

from typing import Any

from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.message import Message
from secretflow.security.aggregation.secagg.support import Support


class Stepwise(Client):
    """Keeps the support that it has agreed on."""

    support: Support | None = None

    def settle(self, total: Message) -> Support:
        self.support = super().settle(total)
        return self.support

    def average(self, call: int, data: Any, *weights: Any) -> Message:
        return self.upload(Call(call, Operation.AVERAGE, self.weights_of(weights)), data)

    def sparse_average(self, call: int, data: Any, *weights: Any) -> Message:
        """An average of what the masks settled last let through."""
        assert self.support is not None
        return self.upload(Call(call, Operation.AVERAGE, self.weights_of(weights), self.support), data)

    def sum(self, call: int, data: Any) -> Message:
        return self.upload(Call(call, Operation.SUM), data)
