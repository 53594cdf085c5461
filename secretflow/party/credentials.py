"""What a party shows to the others: its TLS key, its certificate, and the authority that it trusts."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from secretflow.party.address import Address
from secretflow.party.cluster import Cluster
from secretflow.party.errors import SetupError
from secretflow.party.files import read_public
from secretflow.party.keys import IDENTITY_FILE, KEY_FILE, names_of, read_identity, read_private_key

CERTIFICATE_FILE = "cert.pem"
AUTHORITY_FILE = "ca.pem"


@dataclass(frozen=True)
class Credentials:
    """Files of a party that have been checked. It holds their paths, never what is in them.

    Attributes:
        key: absolute path of the private key.
        certificate: of the certificate, and of those between it and the authority's if there are any.
        authority: of the certificate of the authority.
        identity: of the private key of the identity, beside them; checked where the cluster file pins it.
        valid_until: when the certificate ends.
    """

    key: Path
    certificate: Path
    authority: Path
    identity: Path
    valid_until: datetime.datetime

    @classmethod
    def read(cls, folder: Path, cluster: Cluster, party: str) -> Credentials:
        """Checks ``key.pem``, ``cert.pem`` and ``ca.pem`` of a folder, and ``identity.pem`` if it is pinned.

        Args:
            folder: with these files.
            cluster: that the party belongs to.
            party: its name.

        Raises:
            SetupError: a file is missing, the key is open to others or not the certificate's, the
                certificate is not signed by the authority, has ended, or names another party or no party, or
                the identity is not the pinned one.
        """
        folder = folder.absolute()
        member = cluster.member(party)
        key = read_private_key(folder / KEY_FILE)
        chain = _read_certificates(folder / CERTIFICATE_FILE)
        roots = _read_certificates(folder / AUTHORITY_FILE)
        certificate = chain[0]
        if not isinstance(key, (EllipticCurvePrivateKey, RSAPrivateKey)):
            raise SetupError(f"{folder / KEY_FILE} must be a P-256 or RSA key: gRPC's TLS takes no other")
        if certificate.public_key() != key.public_key():
            raise SetupError(f"{folder / CERTIFICATE_FILE} must be the certificate of the key beside it")
        if not _is_issued(chain, roots):
            raise SetupError(
                f"{folder / CERTIFICATE_FILE} must be signed by the authority of ca.pem beside it"
            )
        now = datetime.datetime.now(datetime.timezone.utc)
        starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not starts <= now <= ends:
            raise SetupError(
                f"{folder / CERTIFICATE_FILE} must hold now, which is {now:%Y-%m-%d %H:%M:%S} UTC by the "
                f"clock of this machine, got from {starts} to {ends}"
            )
        _check_names(folder / CERTIFICATE_FILE, certificate, cluster, party, member.address)
        if member.identity is not None and read_identity(folder) != member.identity:
            raise SetupError(
                f"{folder / IDENTITY_FILE} must be the identity that the cluster file pins for {party}"
            )
        return cls(
            key=folder / KEY_FILE,
            certificate=folder / CERTIFICATE_FILE,
            authority=folder / AUTHORITY_FILE,
            identity=folder / IDENTITY_FILE,
            valid_until=ends,
        )


def _read_certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(read_public(path))
    except SetupError:
        raise
    except ValueError:
        raise SetupError(f"{path} must be a certificate in PEM") from None


def _is_issued(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> bool:
    """Whether each certificate is signed by the next, and the last by an authority."""
    for certificate, issuers in zip(chain, [*([issuer] for issuer in chain[1:]), roots], strict=True):
        if not any(_signed(certificate, issuer) for issuer in issuers):
            return False
    return True


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_names(
    path: Path, certificate: x509.Certificate, cluster: Cluster, party: str, address: Address
) -> None:
    """Checks that a certificate is a party's own and no other's: parties know each other by these names."""
    try:
        names = set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = set()
    shown = sorted(str(name.value) for name in names)
    if not set(names_of(party, address)) <= names:
        raise SetupError(f"{path} must name {party} and {address.host} (subjectAltName), got {shown}")
    if others := {x509.DNSName(other) for other in cluster.members if other != party} & names:
        raise SetupError(
            f"{path} must name no party but {party}, got {sorted(name.value for name in others)}"
        )
