"""Python 3.10 and 3.11 are both first class, and any other one is told so in a sentence."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, run


@pytest.mark.parametrize("version", ["3.9", "3.12", "3.13"])
def test_another_python_is_refused_in_one_sentence(version: str, tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    done = subprocess.run(
        [ROOT / ".ci/environment", folder, version], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip().startswith("Python must be 3.10 or 3.11 ")
    assert done.stderr.strip().endswith(f"got {version}") and not folder.exists()


@pytest.mark.parametrize("version", ["3.10", "3.11"])
@pytest.mark.parametrize("target", ["demo", "test"])
def test_a_command_makes_its_environment_of_the_python_that_was_asked_for(target: str, version: str) -> None:
    asked = (f"PY={version}", f"VENV={ROOT / 'nowhere'}")
    steps = "\n".join(run("make", "--dry-run", target, *asked, cwd=ROOT))
    made = steps.index(f".ci/environment {ROOT / 'nowhere'} {version}")
    assert made < steps.index(f"{ROOT / 'nowhere'}/bin/python")
