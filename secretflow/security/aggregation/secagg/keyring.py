"""A party's keys, and the pads drawn from them. They never leave this object."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Sequence
from enum import Enum
from typing import NoReturn, TypedDict

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .checksum import checksum
from .errors import AggregationError, wrong_sum
from .identity import Identities
from .keys import KEY_BYTES, Purpose, layout_key, pair_keys, session_id, unwrap, wrap
from .layout import Layout
from .message import Message, take_pads_off
from .neighbours import neighbours_of
from .pads import Pads
from .ratchet import Ratchet

_FINGERPRINT_DIGITS = 16


class KeyStage(Enum):
    """How far a key agreement has come."""

    ALONE = "has not agreed on keys yet"
    AGREED = "has not had its keys confirmed yet"
    CONFIRMED = "has not got the key of all parties yet"
    READY = "has its keys"


class Confirmation(TypedDict):
    """What a party says of a key agreement: that it is there, and which one it means.

    Attributes:
        signature: of the session by the party's identity; empty if identities are not pinned.
        codes: for each neighbour a code that only the two of them can make.
    """

    signature: bytes
    codes: dict[str, bytes]


class KeyRing:
    """One party's keys with every other party, and one with all of them.

    A public key is a party's own if the party's pinned identity has signed the session, which is the hash of
    all public keys, names and settings. Without identities it is so only if nobody can change messages on
    the way. Pads are drawn only after everybody's signature and the neighbours' codes have been checked: each
    party answers for the session to those it shares pads with, and they are connected.

    Args:
        party: own name.
        names: the names of all parties.
        settings: of the aggregation, which all parties must share.
        identities: who the parties are; None if they are not pinned.
        server_blind: whether the first party adds a pad that only the parties can take off.
        degree: with how many others pads are shared (:mod:`.neighbours`); None with all.

    Attributes:
        session: names the key agreement by all it rests on; empty before it.
    """

    _purposes_with_all: tuple[Purpose, ...] = ()

    def __init__(
        self,
        party: str,
        names: Sequence[str],
        settings: str = "",
        identities: Identities | None = None,
        server_blind: bool = False,
        degree: int | None = None,
    ) -> None:
        self._party = party
        self._names = list(names)
        self._settings = settings
        self._identities = identities
        self._server_blind = server_blind
        self._peers = [name for name in names if name != party]
        self._neighbours, self._degree = self._peers, len(self._peers) if degree is None else degree
        # Forgotten when keys are agreed on: who has it can derive all that the ratchets have forgotten.
        self._private_key: X25519PrivateKey | None = X25519PrivateKey.generate()
        self._ratchets: dict[str, Ratchet] = {}
        self._wrapping_keys: dict[str, bytes] = {}
        self._expected_codes: dict[str, bytes] = {}
        self._survivor_keys: dict[str, bytes] = {}
        self._stage = KeyStage.ALONE
        self._layout_key: bytes | None = None
        self._group: Ratchet | None = None
        self._of_last_call: tuple[int, bytes] = 0, b""  # its number, and the group's key of it
        self._last_call = 0
        self.session = ""

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys never leave their process, so they cannot be pickled")

    def public_key(self) -> bytes:
        """The raw X25519 public key, 32 bytes; only before keys are agreed on."""
        return self._own_key().public_key().public_bytes_raw()

    def fingerprint(self) -> str:
        """The session in short: the same at all parties unless somebody has exchanged a key."""
        return self.session[:_FINGERPRINT_DIGITS]

    def agree(self, *public_keys: bytes) -> Confirmation:
        """Derives the key of every pair this party is in.

        Args:
            *public_keys: everybody's public key, in the order of the names.

        Returns:
            What :meth:`confirm` of the others needs.

        Raises:
            AggregationError: the own public key is not among them, or the own identity cannot be read.
        """
        private_key, by_party = self._own_key(), dict(zip(self._names, public_keys, strict=True))
        if by_party[self._party] != self.public_key():
            raise AggregationError(f"the public key of {self._party} is not the one that it gave")
        session = session_id(by_party, self._settings)
        signature = b"" if self._identities is None else self._identities.sign(session)
        self._neighbours = neighbours_of(self._party, self._names, session, self._degree)
        keys = {
            peer: pair_keys(purposes, private_key, self._party, peer, by_party[peer], session)
            for peer, purposes in self._purposes().items()
        }

        def of(purpose: Purpose) -> dict[str, bytes]:
            return {peer: found[purpose] for peer, found in keys.items() if purpose in found}

        self._ratchets = {peer: Ratchet(key) for peer, key in of(Purpose.PAD).items()}
        self._wrapping_keys, self._survivor_keys = of(Purpose.WRAP), of(Purpose.SURVIVORS)
        confirming = of(Purpose.CONFIRM)
        self._expected_codes = {peer: _code(key, peer) for peer, key in confirming.items()}
        self.session = session.hex()
        self._private_key = None
        self._stage = KeyStage.AGREED
        codes = {peer: _code(key, self._party) for peer, key in confirming.items()}
        return Confirmation(signature=signature, codes=codes)

    def confirm(self, *confirmations: Confirmation) -> None:
        """Looks whether all mean the same agreement, and are who they say.

        Args:
            *confirmations: everybody's, in the order of the names.

        Raises:
            AggregationError: one is not; then there are no keys.
        """
        if self._stage is not KeyStage.AGREED:
            raise AggregationError(f"{self._party} {self._stage.value}, so there is nothing to confirm")
        self._stage = KeyStage.ALONE
        by_party = dict(zip(self._names, confirmations, strict=True))
        for peer in self._peers:
            if self._identities is not None:
                self._identities.check(peer, bytes.fromhex(self.session), by_party[peer]["signature"])
        for peer in self._expected_codes:
            code = by_party[peer]["codes"].get(self._party, b"")
            if not hmac.compare_digest(code, self._expected_codes[peer]):
                raise AggregationError(
                    f"{peer} and {self._party} do not have the same keys: somebody on the way has exchanged "
                    "one, or they have different settings; nothing was uploaded"
                )
        self._stage = KeyStage.CONFIRMED
        said = "%s: fingerprint of the aggregation, the same at all: %s"
        logging.info(said, self._party, self.fingerprint())

    def share_group_key(self) -> dict[str, bytes]:
        """Draws the key that all parties share and the server has not; the first party does this.

        Returns:
            The key, encrypted for each peer.
        """
        if self._layout_key is not None:
            raise AggregationError("the group key was shared already: a wrapping key wraps one message, ever")
        key = secrets.token_bytes(KEY_BYTES)
        self._take(key)
        return {peer: wrap(self._wrapping_keys.pop(peer), key) for peer in self._peers}

    def take_group_key(self, wrapped: dict[str, bytes]) -> None:
        """Takes the key that the first party has drawn."""
        self._take(unwrap(self._wrapping_keys[self._names[0]], wrapped[self._party]))

    def pads(self, call: int, heard: bytes = b"") -> Pads:
        """The pads of a call, once: from here on its number is spent, whatever becomes of the call.

        Args:
            call: its number.
            heard: what this party was told so far, see :class:`~.transcript.Transcript`; pads of parties that
                were told different things do not cancel.

        Raises:
            AggregationError: the number is not larger than the last one, or there are no keys yet.
        """
        self._spend(call)
        shared = self._shared(call, heard, self._neighbours)
        keys = [(key, self._party > peer) for peer, key in shared.items()]
        if self._server_blind and self._party == self._names[0]:
            keys.append((self._derived(b"blinding"), False))
        return Pads(keys, call)

    def _spend(self, call: int) -> None:
        """Takes a call's number, once."""
        if call <= self._last_call:
            raise AggregationError(
                f"call {call} is not larger than the last one of {self._party}, {self._last_call}: "
                "a pad is never used twice"
            )
        if self._stage is not KeyStage.READY or self._group is None:
            raise AggregationError(f"{self._party} {self._stage.value}")
        self._last_call = call
        self._of_last_call = call, self._group.key_of(call)

    def _shared(self, call: int, heard: bytes, peers: Sequence[str]) -> dict[str, bytes]:
        """By peer the key of the pad shared with it in a call."""
        return {peer: hmac.digest(self._ratchets[peer].key_of(call), heard, "sha256") for peer in peers}

    def checksum(self, numbers: np.ndarray) -> np.ndarray:
        """The :func:`~.checksum.checksum` of numbers of the last call, under the key of all parties."""
        return checksum(self._derived(b"checksum"), self._of_last_call[0], numbers)

    def unblinded(self, total: Message) -> Message:
        """A sum without the pad that blinds the server.

        Raises:
            AggregationError: it is not the sum of the last call, whose key alone is kept.
        """
        if not self._server_blind:
            return total
        call, _ = self._of_last_call
        if total["call"] != call:
            raise wrong_sum(call, total["call"])
        opened: Message = {**total, "body": [part.copy() for part in total["body"]]}
        take_pads_off(opened, [(self._derived(b"blinding"), True)])
        return opened

    def name_of(self, layout: Layout, call: int) -> str:
        """The name that messages of a call carry: equal for equal layouts.

        It goes by the masks: a server that shall learn nothing could try out guesses on a plain digest, and
        see by a name that comes again that no mask has changed.
        """
        if not self._server_blind or self._layout_key is None:
            return layout.digest
        return hmac.new(self._layout_key, b"%d " % call + layout.digest.encode(), "sha256").hexdigest()

    def _take(self, key: bytes) -> None:
        # What names layouts stays; what pads turns with each call.
        if self._stage is not KeyStage.CONFIRMED:
            raise AggregationError(f"{self._party} {self._stage.value}")
        self._layout_key = layout_key(key)
        self._group = Ratchet(key)
        self._stage = KeyStage.READY

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.digest(self._of_last_call[1], purpose, "sha256")

    def _purposes(self) -> dict[str, list[Purpose]]:
        """What keys are for, by peer."""
        first = self._names[0]
        needed = {peer: list(self._purposes_with_all) for peer in self._peers}
        for peer in self._neighbours:
            needed[peer] += [Purpose.PAD, Purpose.CONFIRM]
        for peer in self._peers if self._party == first else [first]:
            needed[peer].append(Purpose.WRAP)
        return {peer: purposes for peer, purposes in needed.items() if purposes}

    def _own_key(self) -> X25519PrivateKey:
        if self._private_key is None:
            raise AggregationError(f"{self._party} has agreed on keys already")
        return self._private_key


def _code(key: bytes, sender: str) -> bytes:
    """What one party of a pair tells the other to confirm their keys."""
    return hmac.digest(key, sender.encode(), "sha256")


def agree_all(rings: Sequence[KeyRing]) -> None:
    """Has the key rings of one process agree, as the parties of one machine do.

    Args:
        rings: of all parties, in the order of their names.
    """
    public_keys = [ring.public_key() for ring in rings]
    confirmations = [ring.agree(*public_keys) for ring in rings]
    for ring in rings:
        ring.confirm(*confirmations)
    first, *others = rings
    wrapped = first.share_group_key()
    for ring in others:
        ring.take_group_key(wrapped)
