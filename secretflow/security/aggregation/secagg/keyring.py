"""A party's keys, and the pads drawn from them. They never leave this object."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .errors import AggregationError
from .keys import KEY_BYTES, Purpose, layout_key, pair_key, session_id, unwrap, wrap
from .layout import Layout
from .message import Message
from .pads import Pads


class KeyRing:
    """One party's keys with every other party, and with all of them if the server is blind.

    Args:
        party: own name.
        names: the names of all parties.

    Attributes:
        session: names the key agreement by all public keys; empty before it.
    """

    def __init__(self, party: str, names: Sequence[str]) -> None:
        self._party = party
        self._names = list(names)
        self._peers = [name for name in names if name != party]
        self._private_key = X25519PrivateKey.generate()
        self._public_keys: dict[str, bytes] = {}
        self._pad_keys: dict[str, bytes] = {}
        self._group_key: bytes | None = None
        self._last_call = 0
        self.session = ""

    def public_key(self) -> bytes:
        """The raw X25519 public key, 32 bytes."""
        return self._private_key.public_key().public_bytes_raw()

    def agree(self, *public_keys: bytes) -> None:
        """Derives the key of every pair this party is in.

        Args:
            *public_keys: everybody's public key, in the order of the names.

        Raises:
            AggregationError: the own public key is not among them.
        """
        self._public_keys = dict(zip(self._names, public_keys, strict=True))
        if self._public_keys[self._party] != self.public_key():
            raise AggregationError(f"the public key of {self._party} is not the one that it gave")
        self.session = session_id(self._public_keys).hex()
        self._pad_keys = {peer: self._pair_key(Purpose.PAD, peer) for peer in self._peers}

    def share_group_key(self) -> dict[str, bytes]:
        """Draws the key of the pad that blinds the server; the first party does this.

        Returns:
            The key, encrypted for each peer.
        """
        if self._group_key is not None:
            raise AggregationError("the group key was shared already: a wrapping key wraps one message, ever")
        self._group_key = secrets.token_bytes(KEY_BYTES)
        return {peer: wrap(self._pair_key(Purpose.WRAP, peer), self._group_key) for peer in self._peers}

    def take_group_key(self, wrapped: dict[str, bytes]) -> None:
        """Takes the key that the first party has drawn."""
        self._group_key = unwrap(self._pair_key(Purpose.WRAP, self._names[0]), wrapped[self._party])

    def pads(self, call: int) -> Pads:
        """The pads of a call, once: from here on its number is spent, whatever becomes of the call.

        Raises:
            AggregationError: the number is not larger than the last one, or there are no keys yet.
        """
        if call <= self._last_call:
            raise AggregationError(
                f"call {call} is not larger than the last one of {self._party}, {self._last_call}: "
                "a pad is never used twice"
            )
        if not self._pad_keys:
            raise AggregationError(f"{self._party} has not agreed on keys yet")
        self._last_call = call
        keys = [(key, self._party > peer) for peer, key in self._pad_keys.items()]
        if self._group_key is not None and self._party == self._names[0]:
            keys.append((self._group_key, False))
        return Pads(keys, call)

    def unblinded(self, total: Message) -> Message:
        """A sum without the pad that blinds the server."""
        if self._group_key is None:
            return total
        pads = Pads([(self._group_key, True)], total["call"])
        body = [part.copy() for part in total["body"]]
        for part in body:
            pads.add_to(part)
        return {**total, "body": body}

    def name_of(self, layout: Layout) -> str:
        """The name that messages carry: equal for equal layouts.

        It goes by the masks, so a server that shall learn nothing could try out guesses on a plain digest.
        """
        if self._group_key is None:
            return layout.digest
        return hmac.new(layout_key(self._group_key), layout.digest.encode(), "sha256").hexdigest()

    def _pair_key(self, purpose: Purpose, peer: str) -> bytes:
        return pair_key(purpose, self._private_key, self._party, peer, self._public_keys)
