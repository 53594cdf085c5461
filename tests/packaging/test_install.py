"""The wheel and the editable installation: over upstream while they are there, and gone without a trace."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import BORROWED, OFFLINE, Environment, copy_of_checkout, run

HOME = "secretflow_prune_overlay"
FL_MODEL = "secretflow/ml/nn/fl/fl_model.py"
UPSTREAM = BORROWED / "secretflow"

pytestmark = [pytest.mark.install, pytest.mark.slow]

PATH = "import sys; print(*sys.path, sep='\\n')"
PACKAGE = "from importlib.util import find_spec; print(find_spec('secretflow').origin)"
MODULE = "from importlib.util import find_spec; print(find_spec('secretflow.ml.nn.fl.fl_model').origin)"

# Pip asks before a build that is isolated, which needs an index; the answer leaves metadata in the checkout.
ASK_WHAT_A_BUILD_NEEDS = """
from setuptools.build_meta import get_requires_for_build_editable
get_requires_for_build_editable()
"""

WHERE_IN_WORKER = """
import secretflow as sf

def where():
    import inspect
    from secretflow.ml.nn import FLModel
    return inspect.getfile(FLModel)

sf.init(["alice"], address="local", num_cpus=1)
try:
    print(where(), sf.reveal(sf.PYU("alice")(where)()), sep="\\n")
finally:
    sf.shutdown()
"""


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.py"))
    }


def script_in(folder: Path) -> Path:
    """A program that says where the overlay is, in the driver and in a party's worker."""
    script = folder / "script.py"
    script.write_text(WHERE_IN_WORKER, encoding="utf-8")
    return script


def test_a_wheel_holds_the_overlay_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    kept = [n for n in names if not n.startswith(f"{HOME}/secretflow/") and ".dist-info/" not in n]
    assert kept == ["secretflow_prune.pth"]
    assert {f"{HOME}/{FL_MODEL}", f"{HOME}/secretflow/py.typed"} <= set(names)


def test_a_wheel_puts_the_fork_over_upstream_and_takes_it_off_again(wheel: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where's"
    elsewhere.mkdir()
    environment = Environment(tmp_path / "environment with spaces")
    upstream_before = digests(UPSTREAM)
    environment.pip("install", *OFFLINE, wheel, cwd=elsewhere)

    overlay = environment.site_packages / HOME
    assert run(environment.python, "-c", PACKAGE, cwd=elsewhere) == [str(overlay / "secretflow/__init__.py")]
    assert run(environment.python, script_in(elsewhere), cwd=elsewhere)[-2:] == [str(overlay / FL_MODEL)] * 2

    environment.pip("uninstall", "--yes", "secretflow-prune", cwd=elsewhere)
    assert run(environment.python, "-c", PACKAGE, cwd=elsewhere) == [str(UPSTREAM / "__init__.py")]
    assert not list(environment.folder.rglob(f"{HOME}/**/*.py"))
    assert digests(UPSTREAM) == upstream_before


def test_an_editable_installation_runs_the_checkout(
    with_editable: Environment, checkout: Path, tmp_path: Path
) -> None:
    assert run(with_editable.python, "-c", MODULE, cwd=tmp_path) == [str(checkout / FL_MODEL)]


def test_an_editable_installation_puts_nothing_but_the_overlay_on_the_path(
    with_editable: Environment, checkout: Path, tmp_path: Path
) -> None:
    folders = [Path(entry) for entry in run(with_editable.python, "-c", PATH, cwd=tmp_path) if entry]
    ours = [folder for folder in folders if folder.is_relative_to(checkout)]
    assert [entry.name for folder in ours for entry in folder.iterdir()] == ["secretflow"]


def test_uninstalling_an_editable_installation_gives_upstream_back(tmp_path: Path) -> None:
    checkout = copy_of_checkout(tmp_path / "checkout")
    environment = Environment(tmp_path / "environment")
    run(sys.executable, "-c", ASK_WHAT_A_BUILD_NEEDS, cwd=checkout)
    environment.pip("install", *OFFLINE, "--editable", checkout, cwd=tmp_path)
    environment.pip("uninstall", "--yes", "secretflow-prune", cwd=checkout)
    assert not list(environment.site_packages.glob("secretflow_prune*"))
    assert run(environment.python, "-c", PACKAGE, cwd=tmp_path) == [str(UPSTREAM / "__init__.py")]
