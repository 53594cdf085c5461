"""How the minutes of an audit are shared, so that whoever fits has a chance."""

from __future__ import annotations

import time

_FOR_SEARCHES = 1 / 2
"""Of the time, which those who do not search leave to those who do."""
_AT_LEAST = 1 / 12
"""Of the time, for each who does not search, however many they are; few take so long."""
LEAST_SECONDS = 1.0
"""Below which no search starts, and which everybody else has."""


class Shares:
    """Deals out the time of an audit: equal parts of what is left, as few attackers need all of theirs.

    Args:
        minutes: for all.
        quick: how many attackers do not search; they come first.
        searching: how many do.
    """

    def __init__(self, minutes: float, quick: int, searching: int) -> None:
        now, self._all = time.monotonic(), 60 * minutes
        self._end = {False: now + self._all * (1 - _FOR_SEARCHES * (searching > 0)), True: now + self._all}
        self._waiting = {False: quick, True: searching}

    def next(self, searches: bool) -> float:
        """Seconds for the next attacker; of one who searches 0 or less when the time is over.

        Args:
            searches: whether it does.
        """
        share = self._left(searches) / self._waiting[searches]
        self._waiting[searches] -= 1
        return share if searches else max(share, self._all * _AT_LEAST, LEAST_SECONDS)

    def again(self, needed: float, waiting: int) -> float | None:
        """Seconds for a search that its share was too short for; None if it does not fit into what is left.

        Args:
            needed: seconds that it takes at least.
            waiting: how many such searches have not had their second chance, this one included.
        """
        left = self._left(True)
        return None if needed > left else max(needed, left / waiting)

    def _left(self, searches: bool) -> float:
        return self._end[searches] - time.monotonic()
