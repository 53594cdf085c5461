"""Files that are there at once or not at all: a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from os import PathLike
from pathlib import Path

PRIVATE = 0o600
"""Permissions of a file that only its owner may read."""


@contextmanager
def atomic_write(path: str | PathLike[str], permissions: int = 0o666) -> Iterator[Path]:
    """A file to write, which takes the place of ``path`` when the block has ended.

    If the block raises, what was at ``path`` stays and nothing else is left. A writer that is killed leaves a
    hidden file beside it, which the next one to write that path removes. Several may write one path at the
    same time; the last to finish wins.

    Write into the file that is there (``open("wb")``, ``write_text``, ``torch.save``); one that is put in its
    place would have other permissions. For what must outlast a power cut, ``os.fsync`` the file in the block.

    Args:
        path: of the finished file; folders that are missing are made.
        permissions: of the file from its first byte on, less what the process's umask forbids.

    Yields:
        Path of the unfinished file, empty, in the folder of ``path``.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    handle = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, permissions)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # until closed, also by death: so leftovers are known
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
        os.close(handle)


def write_text(path: str | PathLike[str], text: str, permissions: int = 0o666) -> None:
    """Writes a file of text in UTF-8, at once or not at all; see :func:`atomic_write`.

    Args:
        path: of the file; folders that are missing are made.
        text: its content.
        permissions: of the file, less what the process's umask forbids.
    """
    with atomic_write(path, permissions) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _remove_leftovers(path: Path) -> None:
    """Removes unfinished files of writers that have died: nobody holds their locks."""
    for leftover in path.parent.glob(f".{escape(path.name)}.{'?' * 8}.part"):
        try:
            with leftover.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink(missing_ok=True)
        except OSError:  # somebody is writing it, or it is gone
            continue
