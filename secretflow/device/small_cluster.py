"""The Ray cluster that a program starts for itself, cut down to what it needs.

Ray starts a cluster that many programs could share: with the server of a dashboard, an autoscaler, a reader
of logs, and worker processes that are waited for before anybody needs them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from unittest import mock

from ray._private import node, parameter, worker

from secretflow.device.fork_server import LAUNCHER
from secretflow.device.launcher import SOCKET_VARIABLE

SYSTEM_CONFIG = {"prestart_worker_first_driver": False}
"""Ray's ``_system_config``: the driver does not wait for workers; they start when there is work."""

_SECONDS_TO_LISTEN = 10.0
_MANY_WORKERS = "worker processes have been started on node"


class _Node(node.Node):
    def _init_gcs_client(self) -> None:
        # Ray asks at once, is refused, and asks again a second later.
        host, port = self.gcs_address.rsplit(":", 1)
        end = time.monotonic() + _SECONDS_TO_LISTEN
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
                break
            time.sleep(0.01)
        super()._init_gcs_client()

    def start_api_server(self, *, include_dashboard: bool | None, **how: Any) -> None:
        # Without a dashboard Ray starts its server all the same, for statistics of use.
        if include_dashboard:
            super().start_api_server(include_dashboard=include_dashboard, **how)


@contextmanager
def small_cluster(address: str, log_to_driver: bool) -> Iterator[None]:
    """Makes a Ray cluster that is started in this context a small one. Ray has no public way to that.

    Args:
        address: of the fork server that makes the workers.
        log_to_driver: whether what workers print comes to the driver.
    """
    options: dict[str, Any] = {
        "setup_worker_path": LAUNCHER,
        "no_monitor": True,
        "include_log_monitor": log_to_driver,
    }
    parameters = partial(parameter.RayParams, **options)
    with (
        mock.patch.dict(os.environ, {SOCKET_VARIABLE: address}),
        mock.patch.object(parameter, "RayParams", parameters),
        mock.patch.object(node, "Node", _Node),
    ):
        yield


@contextmanager
def quiet_about_workers() -> Iterator[None]:
    """Keeps Ray's warning of many worker processes off the console: each party is some of them by design."""
    printed = worker.print_to_stdstream

    def without_the_warning(message: dict[str, Any]) -> None:
        if not any(_MANY_WORKERS in line for line in message["lines"]):
            printed(message)

    with mock.patch.object(worker, "print_to_stdstream", without_the_warning):
        yield
