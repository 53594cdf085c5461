"""A Ray for this party alone: on loopback, behind TLS with a certificate that no other user can read.

Ray 2.9 has no other authentication: whoever reaches its ports runs what he likes as this user. Its TLS asks
both sides for a certificate of one authority; here certificate and authority are one, made for one start.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from secretflow.party.errors import SetupError
from secretflow.party.files import write_secret
from secretflow.party.keys import as_pem, common_name

_LOOPBACK = "127.0.0.1"
_LONGEST_FOLDER = 107 - len("/ray/session_2026-01-31_23-59-59_123456_4194304/sockets/plasma_store")
"""Bytes; the path of a socket has at most 107."""

_DAYS = 3650  # longer than any run; the key goes with the run
_IDLE_AGENT = str(Path(__file__).with_name("idle_agent.py"))


@contextmanager
def private_ray() -> Iterator[dict[str, Any]]:
    """Prepares the start of a Ray that only this process's user can reach; enter it before Ray is imported.

    Yields:
        Arguments of ``ray.init``.

    Raises:
        SetupError: the folder for temporary files has too long a path.
    """
    # Ray opens its own folder, with logs and sockets, to all users; the one around it is closed.
    with tempfile.TemporaryDirectory(prefix="secretflow-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if len(os.fsencode(name)) > _LONGEST_FOLDER:
            raise SetupError(f"TMPDIR must be a path short enough for Ray's sockets, got {folder.parent}")
        key, certificate = folder / "key.pem", folder / "cert.pem"
        _make_certificate(key, certificate)
        environment = {
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_KEY": str(key),
            "RAY_TLS_SERVER_CERT": str(certificate),
            "RAY_TLS_CA_CERT": str(certificate),
        }
        with mock.patch.dict(os.environ, environment), _without_agents():
            yield {
                "_node_ip_address": _LOOPBACK,
                "_temp_dir": str(folder / "ray"),
                "_system_config": {"enable_metrics_collection": False},  # there is no agent to collect them
            }


def _make_certificate(key_file: Path, certificate_file: Path) -> None:
    key, name = generate_private_key(SECP256R1()), common_name("ray of one party")
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(_LOOPBACK))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    write_secret(key_file, as_pem(key))
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))


@contextmanager
def _without_agents() -> Iterator[None]:
    """Starts an idle program in place of Ray's two agents, whose ports have no authentication.

    The one for runtime environments installs packages for whoever asks over HTTP, the one of the dashboard
    (if ``ray[default]`` is installed) runs jobs. A party uses neither. Ray has no setting to leave them out,
    and its raylet ends when one of them does.
    """
    from ray._private import ray_constants, services

    command_of = services._build_python_executable_command_memory_profileable
    agents = (ray_constants.PROCESS_TYPE_DASHBOARD_AGENT, ray_constants.PROCESS_TYPE_RUNTIME_ENV_AGENT)

    def command(component: str, *args: Any, **kwargs: Any) -> list[str]:
        if component in agents:
            return [sys.executable, _IDLE_AGENT]
        return list(command_of(component, *args, **kwargs))

    with mock.patch.object(services, command_of.__name__, command):
        yield
