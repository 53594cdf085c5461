"""Who may speak over a stream: mutual TLS with the certificates of the parties."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import grpc

from ...errors import AggregationError

PARTY_KEY = "party"
"""Metadata with the sender's name, which is believed where there is no TLS."""

KEEP_ALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_receive_message_length", 1 << 21),  # frames are half as long
    # A server that is started again is found at once, not after two minutes.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


@dataclass(frozen=True)
class Tls:
    """Paths of a party's files, never what is in them.

    Attributes:
        key: private key in PEM.
        certificate: of the party, signed by the authority; names the party as a DNS name.
        authority: certificate of the authority.
    """

    key: Path
    certificate: Path
    authority: Path

    def at_server(self) -> grpc.ServerCredentials:
        """Takes whoever has a certificate of the authority."""
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            self.authority.read_bytes(),
            require_client_auth=True,
        )

    def at_party(self) -> grpc.ChannelCredentials:
        """Shows the party's certificate, and wants one of the authority."""
        return grpc.ssl_channel_credentials(
            self.authority.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )


def check_loopback(address: str) -> None:
    """Refuses an address that others than this machine reach, where there is no TLS.

    Raises:
        AggregationError: it is such a one.
    """
    host = address.rpartition(":")[0]
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = host == "localhost" or address.startswith("unix:")
    if not inside:
        raise AggregationError(f"tls must be given where the address is not of loopback, got {address}")


def sender_of(context: grpc.ServicerContext, names: Collection[str], has_tls: bool) -> str | None:
    """Which of the parties has opened a stream.

    Args:
        context: of the call.
        names: of the parties.
        has_tls: whether its certificate says it; else its own word is taken.

    Returns:
        Its name; None if it is none of them, or its certificate names more than one.
    """
    if has_tls:
        said = context.auth_context().get("x509_subject_alternative_name", ())
        named = {name.decode(errors="replace") for name in said}
    else:
        named = {str(value) for key, value in context.invocation_metadata() if key == PARTY_KEY}
    found = named & set(names)
    return found.pop() if len(found) == 1 else None
