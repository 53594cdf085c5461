"""For how long a party tries to come back to the others."""

from __future__ import annotations

from secretflow.security.aggregation.secagg.errors import AggregationError, ChannelClosedError


class Absence:
    """The time since a party was in for the last time.

    As long as the server answers, others may only be busy, and the party is more patient than with a server
    of which it hears nothing.

    Args:
        wait: seconds without an answer of the server.
        patience: seconds in all.
    """

    def __init__(self, wait: float, patience: float) -> None:
        self._wait = wait
        self._patience = patience
        self._since: float | None = None
        self._unanswered_since: float | None = None

    def end(self) -> None:
        """The party is in."""
        self._since = self._unanswered_since = None

    def is_too_long(self, error: AggregationError, now: float) -> bool:
        """Whether the party shall give up.

        Args:
            error: why it is not in.
            now: seconds of a clock that never goes back.
        """
        self._since = now if self._since is None else self._since
        if not isinstance(error, ChannelClosedError):
            self._unanswered_since = None
        elif self._unanswered_since is None:
            self._unanswered_since = now
        silent = 0.0 if self._unanswered_since is None else now - self._unanswered_since
        return now - self._since > self._patience or silent > self._wait
