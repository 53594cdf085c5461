"""Fresh environments that borrow everything but the overlay from the running one, and the overlay in them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BORROWED = Path(sysconfig.get_path("purelib"))
OFFLINE = ("--no-deps", "--no-build-isolation", "--no-index")


def run(*command: str | Path, cwd: Path) -> list[str]:
    """Runs a command that must succeed; gives the lines that it printed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@dataclass(frozen=True)
class Environment:
    """A virtual environment; a plain path in its .pth lends it packages, and runs no .pth of the lender's."""

    folder: Path

    def __post_init__(self) -> None:
        venv.create(self.folder)
        (self.site_packages / "borrowed.pth").write_text(f"{BORROWED}\n", encoding="utf-8")

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    @property
    def site_packages(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    def pip(self, *arguments: str | Path, cwd: Path) -> None:
        quiet = ("--quiet", "--disable-pip-version-check")
        run(sys.executable, "-m", "pip", "--python", self.python, *arguments, *quiet, cwd=cwd)


def copy_of_checkout(folder: Path) -> Path:
    """What a build needs, elsewhere: building leaves files behind."""
    shutil.copytree(ROOT / "secretflow", folder / "secretflow", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_checkout(tmp_path_factory.mktemp("source") / "check out's")


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", *OFFLINE, "--wheel-dir", folder, checkout, cwd=folder
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def with_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel. Tests leave it as it is, as they leave ``with_editable``."""
    environment = Environment(tmp_path_factory.mktemp("environments") / "with a wheel")
    environment.pip("install", *OFFLINE, wheel, cwd=wheel.parent)
    return environment


@pytest.fixture(scope="session")
def with_editable(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with an editable installation of ``checkout``."""
    environment = Environment(tmp_path_factory.mktemp("environments") / "with a checkout")
    environment.pip("install", *OFFLINE, "--editable", checkout, cwd=checkout.parent)
    return environment
