"""Two copies of the overlay, a checkout and an installed wheel: the first on the path runs, alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import BORROWED, Environment, run
from tests.packaging.test_install import FL_MODEL, HOME, script_in

pytestmark = [pytest.mark.install, pytest.mark.slow]


def test_the_checkout_runs_in_its_folder_beside_an_installed_wheel(
    with_wheel: Environment, checkout: Path
) -> None:
    script = script_in(checkout)
    assert run(with_wheel.python, script, cwd=checkout)[-2:] == [str(checkout / FL_MODEL)] * 2


@pytest.mark.parametrize("order", [1, -1], ids=["checkout first", "wheel first"])
def test_the_first_of_two_copies_on_the_path_runs_alone(
    order: int, with_wheel: Environment, checkout: Path, tmp_path: Path
) -> None:
    copies = [str(checkout), str(with_wheel.site_packages / HOME)][::order]
    code = f"""
import sys
from importlib.util import find_spec
sys.path[:0] = {copies}
for name in ("fl_model", "_upstream_fl_model"):
    print(find_spec(f"secretflow.ml.nn.fl.{{name}}").origin)
"""
    origins = [str(Path(folder, FL_MODEL)) for folder in (copies[0], BORROWED)]
    assert run(with_wheel.python, "-c", code, cwd=tmp_path) == origins


def test_workers_that_would_run_another_copy_than_the_driver_are_an_error(
    with_wheel: Environment, checkout: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [with_wheel.python, script_in(tmp_path)], cwd=checkout, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("RuntimeError: the working directory must hold no other package secretflow")
    assert str(checkout / "secretflow") in last


def test_an_editable_installation_is_no_second_copy(
    with_editable: Environment, checkout: Path, tmp_path: Path
) -> None:
    script = script_in(tmp_path)
    assert run(with_editable.python, script, cwd=checkout)[-2:] == [str(checkout / FL_MODEL)] * 2
