from pathlib import Path

import numpy as np

from benchmarks.separate_environment import pinned, separate_python


def test_an_environment_with_the_same_requirements_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "ready").write_text("one==1\ntwo==2")
    assert separate_python(tmp_path, ["one==1", "two==2"]) == tmp_path / "bin" / "python"
    assert (tmp_path / "ready").exists()


def test_the_versions_installed_here_are_asked_for() -> None:
    assert pinned("numpy") == [f"numpy=={np.__version__}"]
