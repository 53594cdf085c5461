"""What a release is made of, from the checkout and from the source distribution."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.packaging.conftest import ROOT, copy_of_checkout, run

REQUIRES = """
import tempfile
from pathlib import Path
from setuptools.build_meta import prepare_metadata_for_build_wheel
with tempfile.TemporaryDirectory() as folder:
    name = prepare_metadata_for_build_wheel(folder)
    print(Path(folder, name, "METADATA").read_text(encoding="utf-8"))
"""


def checklist() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_release", ROOT / ".ci" / "check_release.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def required(checkout: Path) -> list[str]:
    lines = run(sys.executable, "-c", REQUIRES, cwd=checkout)
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]


@pytest.mark.install
def test_a_checkout_brings_what_python_311_lacks_and_a_source_distribution_does_not(tmp_path: Path) -> None:
    copy = copy_of_checkout(tmp_path / "copy")
    assert not [line for line in required(copy) if "sdc" in line]
    shutil.copytree(ROOT / ".ci", copy / ".ci")
    folder = (copy / ".ci" / "sdc-sdk").as_uri()
    (named,) = [line for line in required(copy) if "sdc" in line]
    assert named.split(";")[0].strip() == f"sdc-sdk @ {folder}"
    assert named.split(";")[1].strip().replace('"', "'") == "python_version == '3.11'"


def test_the_checklist_finds_what_a_changelog_lacks() -> None:
    points = checklist().changelog_points
    before = "# Changelog\n\n## Unreleased\n\n- new\n\n## 0.1.0\n\n- old\n"
    assert [bool(problem) for _, problem in points(before, "0.2.0")] == [True, True]
    after = "# Changelog\n\n## Unreleased\n\n## 0.2.0 (2026-11-26)\n\n- new\n"
    assert [bool(problem) for _, problem in points(after, "0.2.0")] == [False, False]
