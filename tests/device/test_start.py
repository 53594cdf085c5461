"""The quick start of Ray: undone at the end, switched off, and only for the Ray that it was written for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray._private import worker

from secretflow.device.small_cluster import quiet_about_workers

CODE = """
import gc
import secretflow as sf

for own in (gc.get_threshold(), (900, 5, 5)):
    gc.set_threshold(*own)
    sf.init(["alice", "bob"], address="local", log_to_driver=False, logging_level="error")
    print(gc.get_threshold())
    sf.shutdown()
    print(gc.get_threshold() == own)
"""


def test_garbage_is_looked_for_less_often_until_shutdown_unless_the_user_has_said_how_often() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(50000, 10, 10)", "True", "(900, 5, 5)", "True"]


WORKER_OF = """
import logging
from pathlib import Path
import secretflow as sf

logging.basicConfig(format="%(name)s: %(message)s")
logging.getLogger("secretflow.device.start").setLevel(logging.DEBUG)

def parent():
    import os
    return Path(f"/proc/{os.getppid()}/cmdline").read_text()

sf.init(["alice"], address="local", num_cpus=1, log_to_driver=False, logging_level="error")
print("forked" if "fork_server" in sf.reveal(sf.PYU("alice")(parent)()) else "started by Ray")
sf.shutdown()
"""


def start(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WORKER_OF], env={**os.environ, **environment}, capture_output=True, text=True
    )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("secretflow.device.start: ")]


@pytest.mark.slow
@pytest.mark.parametrize(("switch", "worker", "lines"), [("1", "forked", 0), ("0", "started by Ray", 1)])
def test_the_quick_start_can_be_switched_off(switch: str, worker: str, lines: int) -> None:
    done = start(SECRETFLOW_FAST_START=switch)
    assert done.stdout == f"{worker}\n", done.stderr[-3000:]
    assert len(said(done)) == lines


@pytest.mark.slow
def test_the_quick_start_steps_aside_for_another_version_of_ray(tmp_path: Path) -> None:
    metadata = tmp_path / "ray-2.40.0.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.40.0\n", encoding="utf-8")
    done = start(PYTHONPATH=str(tmp_path))
    assert done.stdout == "started by Ray\n", done.stderr[-3000:]
    line = "secretflow.device.start: Ray starts as usual: the quick start is for 2.9.3, this is 2.40.0"
    assert said(done) == [line]


def test_a_switch_that_is_neither_on_nor_off_is_an_error() -> None:
    done = start(SECRETFLOW_FAST_START="off")
    assert done.stderr.splitlines()[-1] == "ValueError: SECRETFLOW_FAST_START must be 0 or 1, got 'off'"


def test_many_workers_are_no_warning_and_all_else_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    many = "WARNING: 8 PYTHON worker processes have been started on node: 1 with address: 2. This could be"
    with quiet_about_workers():
        for line in (many, "a disk is full"):
            worker.print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False})
    shown = capsys.readouterr().out
    assert "a disk is full" in shown and "worker processes" not in shown
