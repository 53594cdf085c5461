"""A process that has imported what workers need, and forks them.

A worker process spends nearly all of its start importing Ray, torch and SecretFlow, on cores that all of them
share. Here one process imports all but Ray, once, while Ray itself starts and the driver imports. It is a
program of its own and not the user's: it has no threads, no connections and none of the user's data when it
forks.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

MODULES = ("cryptography.hazmat.primitives.ciphers", "jax", "pandas", "torch._dynamo", "torchmetrics")
"""What a worker of federated learning imports, but for Ray and what needs Ray.

Ray's library reads whom it works for from the environment, and seeds the generator of its identifiers, when
it is imported: every worker imports it by itself.
"""

LAUNCHER = str(Path(__file__).with_name("launcher.py"))
"""The program that Ray starts for each worker, in place of its own."""

_STANDARD_STREAMS = 3


class ForkServer:
    """The driver's handle of a fork server; it ends with the driver, however that ends."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="secretflow-")  # of this user alone
        self.address = str(Path(self._folder.name, "socket"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(self.address)
            listener.listen(socket.SOMAXCONN)  # from now on launchers may come, and wait
            self._process = subprocess.Popen(
                # By its path: -m would import a package ``secretflow`` of the current directory.
                [sys.executable, __file__, str(listener.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                # A worker has one thread unless the user says otherwise, as Ray has it.
                env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
                start_new_session=True,  # Ctrl-C is for the driver
            )

    def close(self) -> None:
        """Ends the server; workers go on."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()
        self._folder.cleanup()


def main(listener: socket.socket) -> None:
    """Imports what workers need, and forks them until standard input ends.

    Args:
        listener: where launchers connect.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers
    # JAX warns of its threads at every fork; it has none before it is used.
    warnings.filterwarnings("ignore", message=r"os\.fork", category=RuntimeWarning)
    del sys.path[0]  # the folder of this file, whose neighbours are no modules by themselves
    gc.disable()  # an import makes next to no garbage, and looking for it takes a quarter of its time
    for name in MODULES:
        with contextlib.suppress(ImportError):  # the worker that needs it will say so
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is never collected is never written to, and stays shared
    gc.enable()
    job = serve(listener)
    listener.close()
    if job:
        become(*job)


def serve(listener: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Answers launchers.

    Returns:
        In a forked process the request that it was forked for, and its standard streams; in the server, when
        standard input has ended, None.
    """
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError, ValueError):  # that launcher sees to itself
            request, streams = receive(connection)
            if os.fork() == 0:
                return request, streams
            connection.sendall(b"\0")
            for stream in streams:
                os.close(stream)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Reads what :func:`~secretflow.device.launcher.ask` sends.

    Returns:
        The request, and the standard streams as file descriptors of this process.

    Raises:
        OSError: the other side has gone.
        ValueError: it sent something else.
    """
    connection.settimeout(10)
    _, streams, _, _ = socket.recv_fds(connection, 1, _STANDARD_STREAMS)
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    request = json.loads(b"".join(parts))
    if len(streams) != _STANDARD_STREAMS:
        raise ValueError(f"{len(streams)} standard streams came, not {_STANDARD_STREAMS}")
    return request, list(streams)


def become(request: dict[str, Any], streams: list[int]) -> None:
    """Turns this process, just forked, into the one that was asked for, and runs it."""
    import numpy as np

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    environment = request["environment"]
    # Only what differs: where the others lie in memory tells ``setproctitle`` where a process's name is.
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(dict(environment.items() - os.environ.items()))
    os.chdir(request["directory"])
    # Forked processes share the state of what was seeded when it was imported, and noise must differ.
    random.seed()
    np.random.seed()
    program, *_ = sys.argv = request["command"]
    sys.path.insert(0, os.path.dirname(program))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
