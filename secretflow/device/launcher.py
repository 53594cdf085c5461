"""What Ray starts for each worker process: asks the fork server for one, and ends.

Ray runs this file by its path, in place of its own ``setup_worker.py`` and with its arguments. It imports
next to nothing, for every worker process begins with it. Whatever is not plain (another language, a runtime
environment) and whatever goes wrong is left to Ray's own file.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys

SOCKET_VARIABLE = "SECRETFLOW_FORK_SERVER"
"""Environment variable with the path of the fork server's socket."""

_LANGUAGE = "--language=PYTHON"
_SECONDS_TO_WAIT = 120.0  # the server may still be importing


def main(arguments: list[str]) -> None:
    """Has a worker started.

    Args:
        arguments: those of Ray's ``setup_worker.py``: its options, the path of the worker's program and the
            options of that.
    """
    where = os.environ.pop(SOCKET_VARIABLE, "")
    command = [argument for argument in arguments if argument != _LANGUAGE]
    has_environment = any(argument.startswith("--serialized-runtime-env-context") for argument in arguments)
    if where and _LANGUAGE in arguments and not has_environment:
        try:
            ask(where, command)
            return
        except OSError as error:
            print(f"the fork server did not answer ({error!r}): the worker starts by itself", file=sys.stderr)
    ray = importlib.util.find_spec("ray")
    assert ray is not None and ray.origin is not None  # Ray has started this
    own = os.path.join(os.path.dirname(ray.origin), "_private", "workers", "setup_worker.py")
    os.execv(sys.executable, [sys.executable, own, *arguments])


def ask(where: str, command: list[str]) -> None:
    """Sends the fork server what a new process inherits, and waits until it is there.

    Args:
        where: path of the server's socket.
        command: a Python program and its arguments.

    Raises:
        OSError: the server is gone or did not answer.
    """
    request = {"command": command, "environment": dict(os.environ), "directory": os.getcwd()}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_SECONDS_TO_WAIT)
        connection.connect(where)
        socket.send_fds(connection, [b"\0"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1) != b"\0":
            raise ConnectionError("no process was started")


if __name__ == "__main__":
    main(sys.argv[1:])
