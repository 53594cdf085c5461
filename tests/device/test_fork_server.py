"""Workers that are forked: they start as if started by themselves, and never share what must differ."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import secretflow as sf
from secretflow.device.fork_server import LAUNCHER, ForkServer
from secretflow.device.launcher import SOCKET_VARIABLE

WORKER = """
import json, os, random, sys
import numpy as np
out = sys.argv[1]
facts = {
    "arguments": sys.argv[2:], "directory": os.getcwd(), "variable": os.environ.get("OF_THIS_WORKER"),
    "path": sys.path[0], "name": __name__, "parent": os.getppid(), "torch": "torch" in sys.modules,
    "random": random.random(), "numpy": np.random.random(), "fork_server": os.environ.get("SOCKET"),
}
print("said by a worker")
with open(out + ".part", "w") as file:
    json.dump(facts, file)
os.rename(out + ".part", out)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer()
    yield started
    started.close()


def launch(address: str, folder: Path, name: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """Starts a worker as Ray does; gives what it found around it, and what it printed."""
    program = folder / "worker.py"
    program.write_text(WORKER)
    out = folder / name
    environment = {**os.environ, SOCKET_VARIABLE: address, "OF_THIS_WORKER": name}
    done = subprocess.run(
        [sys.executable, LAUNCHER, str(program), str(out), *arguments, "--language=PYTHON"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # The pipes end when the worker has closed them too, so it has ended by now.
    return json.loads(out.read_text()), done.stdout


def test_a_forked_worker_has_what_the_launcher_was_started_with(server: ForkServer, tmp_path: Path) -> None:
    facts, printed = launch(server.address, tmp_path, "one", "--a", "b c")
    assert facts["arguments"] == ["--a", "b c"]
    assert (facts["directory"], facts["path"]) == (str(tmp_path), str(tmp_path))
    assert (facts["variable"], facts["name"]) == ("one", "__main__")
    assert facts["torch"]  # though it imports none
    assert printed == "said by a worker\n"


def test_workers_of_one_server_draw_different_numbers(server: ForkServer, tmp_path: Path) -> None:
    first, second = (launch(server.address, tmp_path, name)[0] for name in ("first", "second"))
    assert first["parent"] == second["parent"]
    assert first["random"] != second["random"] and first["numpy"] != second["numpy"]


def test_without_a_server_a_worker_starts_by_itself(tmp_path: Path) -> None:
    facts, printed = launch(str(tmp_path / "nobody"), tmp_path, "alone", "--a")
    assert (facts["arguments"], facts["variable"]) == (["--a"], "alone")
    assert not facts["torch"] and printed == "said by a worker\n"


def test_a_runtime_environment_is_left_to_ray(server: ForkServer, tmp_path: Path) -> None:
    context = json.dumps({"env_vars": {"OF_THIS_WORKER": "its-own"}, "py_executable": sys.executable})
    facts, _ = launch(server.address, tmp_path, "one", "--a", f"--serialized-runtime-env-context={context}")
    assert (facts["variable"], facts["arguments"]) == ("its-own", ["--a"])
    assert not facts["torch"]


def test_the_server_ends_with_its_driver_even_if_that_is_killed() -> None:
    driver = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from secretflow.device.fork_server import ForkServer; ForkServer(); print(flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert driver.stdout is not None
    driver.stdout.readline()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    # The server holds the pipe's other end as long as it lives.
    assert driver.stdout.read() == b""


def test_parties_of_a_simulation_are_forked(ray_devices: SimpleNamespace) -> None:
    def facts() -> tuple[str, float]:
        import numpy as np

        return Path(f"/proc/{os.getppid()}/cmdline").read_text(), float(np.random.random())

    (alice, one), (bob, other) = sf.reveal([ray_devices.alice(facts)(), ray_devices.bob(facts)()])
    assert alice == bob and "secretflow/device/fork_server.py" in alice
    assert one != other
