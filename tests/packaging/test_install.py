"""The wheel, installed into a fresh environment that borrows everything else from the running one."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = "secretflow_prune_overlay"
BORROWED = Path(sysconfig.get_path("purelib"))
UPSTREAM = BORROWED / "secretflow"

pytestmark = pytest.mark.slow

WHERE = """
import secretflow
from secretflow.ml.nn import FLModel
import inspect, secretflow.data
print(secretflow.__file__, inspect.getfile(FLModel), secretflow.data.__file__, sep="\\n")
"""

WHERE_IN_WORKER = """
import secretflow as sf

def where():
    import inspect, secretflow
    from secretflow.ml.nn import FLModel
    return secretflow.__file__, inspect.getfile(FLModel)

sf.init(["alice"], address="local", num_cpus=1)
try:
    print(*sf.reveal(sf.PYU("alice")(where)()), sep="\\n")
finally:
    sf.shutdown()
"""


def _run(*command: str | Path, cwd: Path) -> list[str]:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split("\n")


def _environment(folder: Path) -> Path:
    """An environment with the borrowed packages; a plain path in a .pth runs no .pth in that path."""
    venv.create(folder)
    python = folder / "bin/python"
    site_packages = next(folder.glob("lib/python*/site-packages"))
    (site_packages / "borrowed.pth").write_text(f"{BORROWED}\n", encoding="utf-8")
    return python


def _pip(python: Path, *arguments: str | Path, cwd: Path) -> None:
    quiet = ("--quiet", "--disable-pip-version-check")
    _run(sys.executable, "-m", "pip", "--python", python, *arguments, *quiet, cwd=cwd)


def _copy_of_checkout(folder: Path) -> Path:
    """What a build needs, elsewhere: building leaves files behind."""
    shutil.copytree(ROOT / "secretflow", folder / "secretflow", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.py"))
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = _copy_of_checkout(folder / "source")
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "--wheel-dir", folder, source, cwd=folder)
    return next(folder.glob("*.whl"))


def test_a_wheel_holds_the_overlay_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    kept = [n for n in names if not n.startswith(f"{HOME}/secretflow/") and ".dist-info/" not in n]
    assert kept == ["secretflow_prune.pth"]
    assert f"{HOME}/secretflow/ml/nn/fl/fl_model.py" in names


def test_a_wheel_puts_the_fork_over_upstream_and_takes_it_off_again(wheel: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where's"
    elsewhere.mkdir()
    python = _environment(tmp_path / "environment with spaces")
    upstream_before = _digests(UPSTREAM)
    _pip(python, "install", "--no-deps", "--no-index", wheel, cwd=elsewhere)

    package, fl_model, data, *_ = _run(python, "-c", WHERE, cwd=elsewhere)
    assert f"{HOME}/secretflow/__init__.py" in package
    assert f"{HOME}/secretflow/ml/nn/fl/fl_model.py" in fl_model
    assert Path(data).is_relative_to(UPSTREAM)

    script = elsewhere / "script.py"
    script.write_text(WHERE_IN_WORKER, encoding="utf-8")
    package, fl_model, *_ = _run(python, script, cwd=elsewhere)
    assert f"{HOME}/secretflow/__init__.py" in package
    assert f"{HOME}/secretflow/ml/nn/fl/fl_model.py" in fl_model

    _pip(python, "uninstall", "--yes", "secretflow-prune", cwd=elsewhere)
    package, *_ = _run(python, "-c", "import secretflow; print(secretflow.__file__)", cwd=elsewhere)
    assert package == str(UPSTREAM / "__init__.py")
    assert not list((tmp_path / "environment with spaces").rglob(f"{HOME}/**/*.py"))
    assert _digests(UPSTREAM) == upstream_before


def test_an_editable_installation_runs_the_checkout(tmp_path: Path) -> None:
    checkout = _copy_of_checkout(tmp_path / "check out's")
    python = _environment(tmp_path / "environment")
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    _pip(python, "install", *offline, "--editable", checkout, cwd=tmp_path)
    package, *_ = _run(python, "-c", "import secretflow; print(secretflow.__file__)", cwd=tmp_path)
    assert package == str(checkout / "secretflow/__init__.py")
