"""The main job from the command line, as ``make demo`` runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "test_h_nn_prune.py"
SMALL = ("--rows", "200", "--epochs", "2", "--restarts", "1", "--attack-iterations", "2", "--out", "demo")
SCREEN = (24, 80)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *SMALL, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_its_console_is_one_screen_that_ends_with_what_was_found(tmp_path: Path) -> None:
    done = run(tmp_path)
    lines = done.stdout.splitlines()
    assert not done.stderr
    assert len(lines) <= SCREEN[0] and max(map(len, lines)) <= SCREEN[1]
    told = "\n".join(lines)
    for part in ("without pruning", "with pruning", "accuracy", "density", "uploaded", "mask known", "Next"):
        assert part in told
    opened = [line.removeprefix("Open").split()[0] for line in lines if " demo/" in line]
    assert len(opened) == 4 and all((tmp_path / name).is_file() for name in opened)
    report = json.loads((tmp_path / "demo" / "report.json").read_text(encoding="utf-8"))
    plain, pruned = (report["training"][name]["epochs"] for name in ("plain", "pruned"))
    assert [epoch["rounds"] for epoch in plain] == [3, 6]  # alice has 80 rows
    assert plain[-1]["density"] == 1 > pruned[-1]["density"]


@pytest.mark.slow
def test_upstreams_strategy_runs_beside_and_verbose_shows_what_libraries_say(tmp_path: Path) -> None:
    done = run(tmp_path, "--no-prune", "--upstream", "--verbose")
    assert "Started a local Ray instance" in done.stderr
    assert not (tmp_path / "demo" / "log.txt").exists()
    report = json.loads((tmp_path / "demo" / "report.json").read_text(encoding="utf-8"))
    assert report["training"]["plain"]["bytes_are"].startswith("computed")
