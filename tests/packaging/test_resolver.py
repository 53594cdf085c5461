"""What an installer picks from a package index: ``pytest -m index tests/packaging``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.packaging.conftest import ROOT

pytestmark = pytest.mark.index

UV = Path(sys.executable).with_name("uv")
INDEX = {"UV_DEFAULT_INDEX": os.environ["PIP_INDEX_URL"]} if "PIP_INDEX_URL" in os.environ else {}


def torch_of(requirements: Path) -> str:
    """The requirement of torch that is left when all others are met; uv reads metadata and no wheel."""
    command = [UV, "pip", "compile", "--quiet", "--no-header", "--no-annotate", requirements]
    done = subprocess.run(command, env={**os.environ, **INDEX}, capture_output=True, text=True, timeout=120)
    if done.returncode and "No solution" not in done.stderr:
        pytest.skip(f"no package index answers: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr[-3000:]
    return next(line for line in done.stdout.splitlines() if Requirement(line).name == "torch")


@pytest.mark.skipif(not UV.exists(), reason="needs uv in the environment")
def test_the_newest_torch_within_the_bounds_fits_all_else(tmp_path: Path) -> None:
    bounds = next(
        line.split('"')[1]
        for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
        if line.strip().startswith('"torch>=')
    )
    alone = tmp_path / "requirements.in"
    alone.write_text(f"{bounds}\n", encoding="utf-8")
    assert torch_of(ROOT / "pyproject.toml") == torch_of(alone)
