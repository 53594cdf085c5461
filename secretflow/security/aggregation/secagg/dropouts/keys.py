"""A party's keys where calls end with those who are there, and what of them is released."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import AggregationError, DisagreementError, wrong_sum
from ..keyring import KeyRing
from ..keys import KEY_BYTES, Purpose, unwrap, wrap
from ..message import Message, take_pads_off
from ..pads import Pads

_NONCE_BYTES = 12
_TAG_BYTES = 16


@dataclass(frozen=True)
class _CallKeys:
    """What the pads of one call were drawn from.

    Attributes:
        call: number of the call.
        own: seed of the pad that only this party has.
        shared: by peer the key of the pad shared with it.
    """

    call: int
    own: bytes = field(repr=False)
    shared: Mapping[str, bytes] = field(repr=False)


class SurvivorKeys(KeyRing):
    """A key ring whose pads can be taken off by others, once the party agrees.

    Attributes:
        roster: with whom the next call's pads are shared, this party included.
    """

    _purposes_with_all = (Purpose.SURVIVORS, Purpose.CONFIRM)  # any of them may be left with any other
    roster: tuple[str, ...] = ()
    _last: _CallKeys | None = None
    _awaited: Mapping[str, bytes] = MappingProxyType({})  # by peer the code that it shall send
    _released = 0  # number of the last released call, while its sum is waited for
    _left_on: tuple[int, bytes] | None = None  # what is on the sum: number of the call and the pad's seed

    def pads(self, call: int, heard: bytes = b"") -> Pads:
        """The pads of a call, once: those shared with the roster, and an own one.

        Args:
            call: its number.
            heard: what this party was told so far, see :meth:`.KeyRing.pads`.
        """
        self.forget()
        self._spend(call)
        gone = set(self._names).difference(self.roster)
        neighbours = [peer for peer in self._neighbours if peer not in gone] if gone else self._neighbours
        shared = self._shared(call, heard, neighbours)
        self._last = _CallKeys(call, secrets.token_bytes(KEY_BYTES), shared)
        pairs = [(key, self._party > peer) for peer, key in shared.items()]
        return Pads([*pairs, (self._last.own, False)], call)

    def codes(self, statement: bytes, peers: Iterable[str]) -> dict[str, bytes]:
        """What tells each peer that this party means a statement.

        The keys of the codes are no keys of pads: those are released to the server when their peer has
        dropped out, who may be there after all and could then be told anything in everybody's name. The two
        codes of a pair are the halves of keyed BLAKE2b with 64 bytes (RFC 7693, section 2.9), which tell
        nothing about each other; it takes a third of the time of HMAC.
        """
        own, awaited = {}, {}
        for peer in peers:
            both = blake2b(statement, key=self._survivor_keys[peer]).digest()
            first, second = both[:KEY_BYTES], both[KEY_BYTES:]  # in the order of the two names
            own[peer], awaited[peer] = (first, second) if self._party < peer else (second, first)
        self._awaited = awaited
        return own

    def check_codes(self, codes: Mapping[str, bytes]) -> None:
        """Looks whether all who were told of the last statement mean the same.

        Args:
            codes: by sender.

        Raises:
            DisagreementError: a code is missing or another one.
        """
        for peer, awaited in self._awaited.items():
            if not hmac.compare_digest(codes.get(peer, b""), awaited):
                raise DisagreementError(
                    f"{peer} does not agree with {self._party} on who is there or on the sums so far: "
                    "they mean different things, or somebody tells them such; nothing was opened"
                )

    def release(self, dropped: Collection[str], seal: bool) -> tuple[bytes, dict[str, bytes]]:
        """What takes this party's pads of the last call off, once.

        Args:
            dropped: whose pads are in the sum on this side only.
            seal: whether the own seed is for the parties' eyes only.

        Returns:
            The own seed, and the keys shared with ``dropped``.

        Raises:
            AggregationError: there are no pads to take off.
        """
        last = self._last
        if last is None:
            raise AggregationError(f"{self._party} has released or forgotten the pads of its last call")
        self.forget()
        self._released = last.call
        own = wrap(self._sealing_key(self._party), last.own) if seal else last.own
        return own, {peer: last.shared[peer] for peer in dropped if peer in last.shared}

    def unseal(self, call: int, sealer: str, sealed: bytes) -> None:
        """Takes what takes the last pad off the sum of a call, if the server is blind.

        Args:
            call: number of the call.
            sealer: whose pad it is.
            sealed: the seed.

        Raises:
            AggregationError: that party has not sealed it for this call.
        """
        if not self._server_blind or self._released != call:
            return
        try:
            seed = unwrap(self._sealing_key(sealer), sealed)
        except InvalidTag:
            seed = b""
        if len(seed) != KEY_BYTES:
            raise AggregationError(f"the seed that came with the sum was not sealed by {sealer}")
        self._left_on = call, seed

    def unblinded(self, total: Message) -> Message:
        """A sum without the pad that blinds the server, see :meth:`.KeyRing.unblinded`."""
        if not self._server_blind:
            return total
        call, seed = self._left_on or (0, b"")
        if total["call"] != call:
            raise wrong_sum(call, total["call"])
        self._left_on = None
        opened: Message = {**total, "body": [part.copy() for part in total["body"]]}
        take_pads_off(opened, [(seed, True)])
        return opened

    @property
    def blinds_server(self) -> bool:
        """Whether the first survivor's own pad is for the parties to take off."""
        return self._server_blind

    def sealed(self, call: int, body: bytes) -> bytes:
        """What this party tells all others in a call, behind what shows that one of them has told it.

        The server reads it (:func:`as_told`) unless it is blind, and cannot change it in either case.
        """
        nonce, about = secrets.token_bytes(_NONCE_BYTES), _sender(call, self._party)
        if self._server_blind:
            return nonce + self._report_cipher().encrypt(nonce, body, about)
        return nonce + self._report_cipher().encrypt(nonce, b"", about + body) + body

    def opened(self, call: int, sender: str, body: bytes) -> bytes:
        """What a party has told in a call.

        Raises:
            AggregationError: it is not what that party has told.
        """
        nonce, sealed, about = body[:_NONCE_BYTES], body[_NONCE_BYTES:], _sender(call, sender)
        try:
            if self._server_blind:
                return self._report_cipher().decrypt(nonce, sealed, about)
            told = as_told(body)
            self._report_cipher().decrypt(nonce, sealed[:_TAG_BYTES], about + told)
        except (InvalidTag, ValueError):
            raise AggregationError(f"the report of {sender} was changed on its way") from None
        return told

    def _report_cipher(self) -> AESGCM:
        if self._layout_key is None:
            raise AggregationError(f"{self._party} {self._stage.value}")
        return AESGCM(hmac.digest(self._layout_key, b"reports", "sha256"))

    def forget(self) -> None:
        """Forgets the keys of the last call; its upload stays closed for ever, as far as this party goes."""
        self._last = None
        self._awaited = MappingProxyType({})
        self._left_on = None
        self._released = 0

    def _sealing_key(self, sealer: str) -> bytes:
        """Of the last call, one for each party that may seal, as a key seals one message, ever."""
        return self._derived(b"seal " + sealer.encode())


def as_told(sealed: bytes) -> bytes:
    """What :meth:`SurvivorKeys.sealed` was given, as a server that is not blind reads it, unchecked."""
    return sealed[_NONCE_BYTES + _TAG_BYTES :]


def _sender(call: int, sender: str) -> bytes:
    return call.to_bytes(8, "big") + len(sender.encode()).to_bytes(4, "big") + sender.encode()
