"""Who the parties are: long-term keys that they know each other by, and what they sign with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from .errors import AggregationError

_LABEL = b"secretflow-prune session v1"


@dataclass(frozen=True)
class Identities:
    """The parties' identities, and where this machine keeps its own.

    Attributes:
        pinned: of each party its raw Ed25519 public key (32 bytes) as 64 hexadecimal digits.
        own_file: this party's private key in PEM, an absolute path. Only the path is kept here.
    """

    pinned: Mapping[str, str]
    own_file: Path

    def sign(self, session: bytes) -> bytes:
        """Signs a session with the own identity.

        Args:
            session: names the key agreement by all it rests on.

        Returns:
            64 bytes.

        Raises:
            AggregationError: the file is no Ed25519 key. The message has nothing of the file.
        """
        try:
            key = load_pem_private_key(self.own_file.read_bytes(), password=None)
        except (OSError, ValueError, TypeError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise AggregationError(f"{self.own_file} must be a readable Ed25519 private key in PEM")
        return key.sign(_LABEL + session)

    def check(self, party: str, session: bytes, signature: bytes) -> None:
        """Looks whether a party has signed a session.

        Raises:
            AggregationError: it has not, or its identity is not pinned.
        """
        if party not in self.pinned:
            raise AggregationError(
                f"the identity of {party} must be pinned, got those of {sorted(self.pinned)}"
            )
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.pinned[party])).verify(
                signature, _LABEL + session
            )
        except (InvalidSignature, ValueError):
            raise AggregationError(
                f"the keys that came for {party} are not signed by its identity: somebody on the way has "
                "exchanged a key, or the parties have different cluster files; nothing was uploaded"
            ) from None


_here: Identities | None = None


def set_identities(identities: Identities | None) -> None:
    """Says who the parties of this process's cluster are; None forgets it."""
    global _here
    _here = identities


def identities_here() -> Identities | None:
    """The identities that :func:`set_identities` was given last."""
    return _here
