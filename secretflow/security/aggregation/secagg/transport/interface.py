"""What every transport of messages between the parties' clients and the server offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from secretflow.device import PYU, PYUObject

Begin = Callable[[PYU, int], PYUObject]
"""Given a party and the start of its call numbers, has its actor begin a generator of exchanges."""


class Transport(Protocol):
    """Drives what all parties have begun."""

    def rounds_at_once(self) -> int:
        """How many rounds of training shall be run together, at least 1.

        Between two runs the driver moves its progress bar and sees errors. Where several drivers run, all
        must come to the same number.
        """

    def run(self, begin: Begin, exchanges: int, rounds: int = 0) -> dict[PYU, Any]:
        """Has every party begin, carries all messages, and waits until everybody is done.

        Args:
            begin: begins at one party.
            exchanges: how many messages each party sends, at least 1.
            rounds: how many rounds of training they make up.

        Returns:
            What comes out at each party; everybody is told.

        Raises:
            Exception: whatever a party or the server has failed with, its own error before one that follows
                from it.
        """
