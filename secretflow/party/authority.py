"""A small private authority that signs the parties' certificates."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from secretflow.party.address import Address
from secretflow.party.credentials import AUTHORITY_FILE, CERTIFICATE_FILE
from secretflow.party.errors import SetupError
from secretflow.party.files import new_folder, read_public, write_secret
from secretflow.party.keys import KEY_FILE, as_pem, common_name, names_of, read_private_key

_DAYS_OF_AUTHORITY = 3650
_FOR_CLOCKS = datetime.timedelta(days=1)  # that are behind the authority's


def make_authority(folder: Path) -> None:
    """Makes a new authority: ``key.pem``, which its owner alone may read, and ``ca.pem``.

    Raises:
        SetupError: the folder is there already.
    """
    key, name = generate_private_key(SECP256R1()), common_name("secretflow parties")
    certificate = (
        _builder(_DAYS_OF_AUTHORITY)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    with new_folder(folder) as draft:
        write_secret(draft / KEY_FILE, as_pem(key))
        (draft / AUTHORITY_FILE).write_bytes(certificate.public_bytes(Encoding.PEM))


def sign(authority: Path, request: Path, party: str, address: Address, days: int) -> Path:
    """Signs the certificate of a party; writes ``cert.pem`` and ``ca.pem`` beside its request.

    The certificate names what the authority was told, never what the request asks for.

    Args:
        authority: folder of the authority.
        request: the party's request; it must be signed with the key that it is for.
        party: the name of the party.
        address: where the others reach it.
        days: for which the certificate holds, from now.

    Returns:
        The path of the certificate.

    Raises:
        SetupError: a file is missing or not what it must be, or the request asks for other names.
    """
    key = read_private_key(authority / KEY_FILE)
    root = read_public(authority / AUTHORITY_FILE)
    try:
        issuer = x509.load_pem_x509_certificate(root)
        asked = x509.load_pem_x509_csr(read_public(request))
        is_sound = asked.is_signature_valid
        wanted = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        raise SetupError(
            f"{request} must be the request.pem that init makes, and {authority} an authority"
        ) from None
    if not isinstance(key, EllipticCurvePrivateKey) or not is_sound:
        raise SetupError(
            f"{request} must be signed with its own key, and {authority / KEY_FILE} be a P-256 key"
        )
    names = names_of(party, address)
    if set(wanted) != set(names):
        raise SetupError(
            f"{request} must ask for {[str(name.value) for name in names]}, got "
            f"{[str(name.value) for name in wanted]}"
        )
    certificate = (
        _builder(days)
        .subject_name(common_name(party))
        .issuer_name(issuer.subject)
        .public_key(asked.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    (request.parent / AUTHORITY_FILE).write_bytes(root)
    path = request.parent / CERTIFICATE_FILE
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return path


def _builder(days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _FOR_CLOCKS)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
