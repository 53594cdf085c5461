"""The lines that a run of the main job ends with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.console import Console
from experiments.summary import summary

EPOCH = {"val_multiclassaccuracy": 0.5, "density": 0.25, "bytes_uploaded": 1.5e6, "seconds": 2.0}
SCORES = {"got_back": False, "identified": True, "rank": 1, "candidates": 60_000, "mse": 0.2}


def test_a_run_of_one_kind_has_one_row_and_names_only_files_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    lines = summary(
        {"training": {"plain": {"epochs": [EPOCH, EPOCH]}}, "attack": {"before_prune": SCORES}}, tmp_path
    )
    assert [line.split() for line in lines[1:3]] == [
        ["training", "accuracy", "density", "uploaded", "seconds"],
        ["without", "pruning", "50.0", "%", "0.25", "3.0", "MB", "4"],
    ]
    assert (
        "nothing is pruned" in lines[5] and "not below 0.01, yet recognisable: nearest of 60,000" in lines[5]
    )
    assert sum(str(tmp_path) in line for line in lines) == 1


def test_what_other_processes_write_goes_into_the_file(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with Console(tmp_path / "log.txt") as console:
        subprocess.run([sys.executable, "-c", "import os; os.write(1, b'one\\n'); os.write(2, b'two\\n')"])
        print("three")
        console.show("shown")
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("shown\n", "after\n")
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\nthree\n"


def test_after_an_exception_the_console_is_what_it_was(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="broken"), Console(tmp_path / "log.txt"):
        raise ValueError("broken")
    print("seen")
    assert capfd.readouterr().out == "seen\n"
