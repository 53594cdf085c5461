"""The transcript: what a party was told so far, in 32 bytes."""

from __future__ import annotations

from hashlib import sha256

from .message import Message


class Transcript:
    """A hash of all sums that a party has read.

    Pads go by it, so the pads of parties that were told different things do not cancel: nobody can read their
    sum. What was told in an exchange counts only when that has come to its end, for a party may miss the last
    message of one that fails, and the others not.
    """

    def __init__(self) -> None:
        self._settled = self._now = bytes(32)

    @property
    def digest(self) -> bytes:
        """32 bytes, the same for parties that were told the same."""
        return self._now

    def begin(self, anew: bool = False) -> None:
        """Begins an exchange; what was told in one that has not come to its end is forgotten.

        Args:
            anew: forgets everything.
        """
        if anew:
            self._settled = bytes(32)
        self._now = self._settled

    def end(self) -> None:
        """Ends an exchange, which has come to its end."""
        self._settled = self._now

    def mix(self, what: bytes) -> None:
        """Takes down what all parties must have in common."""
        self._now = sha256(self._now + b"common" + sha256(what).digest()).digest()

    def add(self, total: Message) -> None:
        """Takes down a sum."""
        state = sha256(self._now)
        state.update(repr((total["call"], total["layout"], total["encoding"])).encode())
        for part in total["body"]:
            state.update(part.size.to_bytes(8, "big"))
            state.update(part.data)
        self._now = state.digest()
