"""Parties whose messages are added up in this process, one exchange after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secretflow.security.aggregation.secagg.message import Message, add_up
from secretflow.security.aggregation.secagg.protocol import Exchanges


def together(exchanges: Sequence[Exchanges[Any]], sums: list[Message] | None = None) -> list[Any]:
    """Drives the generators of all parties to their end.

    Args:
        exchanges: of all parties.
        sums: takes what the server has sent.

    Returns:
        What comes out at each.
    """
    messages = [next(exchange) for exchange in exchanges]
    while True:
        total = add_up(messages)
        if sums is not None:
            sums.append(total)
        messages, results = [], []
        for exchange in exchanges:
            try:
                messages.append(exchange.send(total))
            except StopIteration as end:
                results.append(end.value)
        if results:
            assert len(results) == len(exchanges), "all parties end with the same exchange"
            return results
