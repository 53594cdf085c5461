"""Keys of calls, of which a key stolen later opens none that were made before it."""

from __future__ import annotations

import hmac

from .errors import AggregationError

CALLS_PER_START = 2**32
"""A call's number is ``start * CALLS_PER_START`` plus its place among the calls of that start."""

_MOST_SKIPPED = 2**20  # a start or a call of a number far off is a mistake, and would take for ever


class Ratchet:
    """A chain of keys that turns one way: each step derives the next state and forgets the last one.

    Two chains, as after a failure parties have made different numbers of calls and go on together from a new
    start: one gives each start its own chain of calls. HMAC-SHA256 with a label for each use is the
    derivation (Signal's symmetric-key ratchet, "The Double Ratchet Algorithm", revision 1, section 2.2).

    Args:
        key: 32 bytes that the two ends share; not kept.
    """

    def __init__(self, key: bytes) -> None:
        self._starts = key
        self._start = -1
        self._calls = b""
        self._call = 0

    def key_of(self, call: int) -> bytes:
        """The key of a call, once.

        Args:
            call: number of the call, larger than any before.

        Returns:
            32 bytes.

        Raises:
            AggregationError: the key of this call has been forgotten, or the number is far beyond the last.
        """
        start, place = divmod(call, CALLS_PER_START)
        if (start, place) < (self._start, self._call):
            raise AggregationError(f"the key of call {call} has been forgotten: it was spent or passed over")
        if start - self._start > _MOST_SKIPPED or place > _MOST_SKIPPED + self._call:
            raise AggregationError(f"call {call} is too far beyond the last one")
        while self._start < start:
            self._calls, self._call = _derived(self._starts, b"calls of a start"), 0
            self._starts = _derived(self._starts, b"next start")
            self._start += 1
        while self._call < place:
            self._calls = _derived(self._calls, b"next call")
            self._call += 1
        key = _derived(self._calls, b"key of a call")
        self._calls = _derived(self._calls, b"next call")
        self._call += 1
        return key


def _derived(key: bytes, label: bytes) -> bytes:
    return hmac.digest(key, label, "sha256")
