"""A file is there at once or not at all, whatever stops its writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from secretflow._atomic import PRIVATE, atomic_write, write_text

KILLED = """
import os, signal, sys
from secretflow._atomic import atomic_write

with atomic_write(sys.argv[1]) as unfinished:
    unfinished.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_what_is_written_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "made" / "file"
    for text in ("first", "sécond"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text and names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_writer_that_raises_leaves_the_file_as_it_was_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as unfinished:
        unfinished.write_text("half")
        assert path.read_text() == "old"
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_text_that_cannot_be_encoded_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    write_text(tmp_path / "page", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "page", "new \udcff")
    assert (tmp_path / "page").read_text() == "old" and names(tmp_path) == ["page"]


def test_what_a_killed_writer_left_is_hidden_and_goes_with_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "model[1]"  # brackets mean something to a glob
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert done.returncode == -signal.SIGKILL
    (leftover,) = set(tmp_path.iterdir()) - {path}
    assert path.read_text() == "old" and leftover.read_text() == "half" and leftover.name.startswith(".")
    write_text(path, "new")
    assert path.read_text() == "new" and names(tmp_path) == ["model[1]"]


def test_several_may_write_one_path_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as slow:
        slow.write_text("slow")
        with atomic_write(path) as quick:
            quick.write_text("quick")
        assert path.read_text() == "quick"
    assert path.read_text() == "slow" and names(tmp_path) == ["file"]


@pytest.mark.parametrize(("permissions", "mode"), [(0o666, 0o640), (PRIVATE, 0o600)])
def test_a_file_has_its_permissions_from_the_first_byte(tmp_path: Path, permissions: int, mode: int) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file", permissions) as unfinished:
            assert unfinished.stat().st_mode & 0o777 == mode
            unfinished.write_text("new")
        assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def test_a_file_that_others_could_read_is_private_once_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    write_text(path, "new", PRIVATE)
    assert path.stat().st_mode & 0o777 == PRIVATE


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError):
        write_text(tmp_path / "file", "new")
    assert names(tmp_path) == ["file"]
