"""Where a party is reached."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from secretflow.party.errors import SetupError

_LARGEST_PORT = 2**16 - 1
_SECONDS_OF_A_TRY = 5.0
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Address:
    """A host and a port.

    Attributes:
        host: an IPv4 address or a host name. RayFed takes no IPv6 address; a name may stand for one.
        port: from 1 to 65535.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, name: str, text: object) -> Address:
        """Reads ``host:port``.

        Args:
            name: what the error calls it.
            text: the address.

        Raises:
            SetupError: it is none.
        """
        host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
        good_port = port.isascii() and port.isdecimal() and 0 < int(port) <= _LARGEST_PORT
        if not (good_port and _HOST.fullmatch(host) and _is_whole(host)):
            raise SetupError(
                f"{name} must be host:port, with an IPv4 address or a name and a port from 1 to "
                f"{_LARGEST_PORT}, got {text!r}"
            )
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_unspecified(self) -> bool:
        """Whether it means all addresses of a machine; nobody can be reached there."""
        return self.host == "0.0.0.0"

    def check_free(self, name: str) -> None:
        """Checks that this process can listen there, before all that takes long.

        Args:
            name: what the error calls it.

        Raises:
            SetupError: the address is another machine's, or another process listens there.
        """
        try:
            with socket.create_server((self.host, self.port)):
                pass
        except OSError as error:
            raise SetupError(
                f"{name} must be a free port of this machine, got {self}: {error.strerror}"
            ) from None

    def answers(self) -> bool:
        """Whether somebody listens there, as far as five seconds tell."""
        try:
            with socket.create_connection((self.host, self.port), timeout=_SECONDS_OF_A_TRY):
                return True
        except OSError:
            return False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def _is_whole(host: str) -> bool:
    """Whether a host of digits and dots is an IPv4 address: C takes ``127.1`` for one, Python does not."""
    if not re.fullmatch(r"[0-9.]+", host):
        return True
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
