"""A party's keys: the identity, which lasts, and the key of its TLS certificate, replaced with it."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from secretflow.party.address import Address
from secretflow.party.errors import SetupError
from secretflow.party.files import new_folder, read_secret, write_secret

IDENTITY_FILE = "identity.pem"
KEY_FILE = "key.pem"
REQUEST_FILE = "request.pem"


def make_party(folder: Path, party: str, address: Address) -> str:
    """Makes the keys of a party and its request for a certificate.

    Args:
        folder: new folder for ``identity.pem`` (Ed25519), ``key.pem`` (P-256, for TLS) and ``request.pem``.
        party: its name.
        address: where the others reach it.

    Returns:
        Its identity, the raw Ed25519 public key in hexadecimal digits.

    Raises:
        SetupError: the folder is there already.
    """
    identity = Ed25519PrivateKey.generate()
    key = generate_private_key(SECP256R1())  # gRPC's TLS has no Ed25519
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(common_name(party))
        .add_extension(x509.SubjectAlternativeName(names_of(party, address)), critical=False)
        .sign(key, SHA256())
    )
    with new_folder(folder) as draft:
        write_secret(draft / IDENTITY_FILE, as_pem(identity))
        write_secret(draft / KEY_FILE, as_pem(key))
        (draft / REQUEST_FILE).write_bytes(request.public_bytes(Encoding.PEM))
    return public_identity(identity)


def read_identity(folder: Path) -> str:
    """The identity of the party whose folder it is, in hexadecimal digits.

    Raises:
        SetupError: ``identity.pem`` is missing, open to others or no Ed25519 key.
    """
    key = read_private_key(folder / IDENTITY_FILE)
    if not isinstance(key, Ed25519PrivateKey):
        raise SetupError(f"{folder / IDENTITY_FILE} must be an Ed25519 private key")
    return public_identity(key)


def read_private_key(path: Path) -> object:
    """Reads a private key, which its owner alone may be able to read.

    Raises:
        SetupError: it is missing, open to others, encrypted or no key. The message has nothing of the file.
    """
    content = read_secret(path)
    try:
        return load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SetupError(f"{path} must be a private key in PEM without a passphrase") from None


def as_pem(key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> bytes:
    """A private key as PKCS #8, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_identity(key: Ed25519PrivateKey) -> str:
    """The raw public key (32 bytes) in hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def common_name(name: str) -> x509.Name:
    """An X.509 name with nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def names_of(party: str, address: Address) -> list[x509.GeneralName]:
    """What a party's certificate must name: the party, for the other parties, and its host, for everybody."""
    try:
        host: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(address.host))
    except ValueError:
        host = x509.DNSName(address.host.lower())
    return list(dict.fromkeys([x509.DNSName(party), host]))
