"""Files that hold secrets, and folders that are a party's own."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secretflow.party.errors import SetupError

_LARGEST = 1 << 20  # of a PEM file; whatever is larger is none


def write_secret(path: Path, content: bytes) -> None:
    """Writes a new file that its owner alone may read.

    Raises:
        FileExistsError: there is one; it stays as it is.
    """
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def read_secret(path: Path) -> bytes:
    """Reads a file that its owner alone may read.

    Raises:
        SetupError: it is missing, is no regular file, or is another user's or open to others.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_LARGEST)
    except OSError as error:
        raise SetupError(f"{path} must be a file that this user can read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise SetupError(f"{path} must be a regular file of this user, got one of user {status.st_uid}")
    if status.st_mode & 0o077:
        raise SetupError(
            f"{path} must be open to its owner alone, got mode {stat.S_IMODE(status.st_mode):04o}; others "
            "may have read this key: make a new one, or if you know that nobody has, run chmod 600"
        )
    return content


def read_public(path: Path) -> bytes:
    """Reads a file that anybody may read.

    Raises:
        SetupError: it is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise SetupError(f"{path} must be a file that this user can read: {error.strerror}") from None


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fills a folder of this user alone that is there under its name only when it is complete.

    Args:
        path: of a folder that is not there yet.

    Yields:
        The folder under the name that it has meanwhile.

    Raises:
        SetupError: it is there already, or its parent is not.
    """
    if path.exists():
        raise SetupError(f"the folder {path} must not be there yet: keys are never overwritten")
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.absolute().parent))  # mode 0700
    except OSError as error:
        raise SetupError(f"the folder {path} must be in one that can be written: {error.strerror}") from None
    try:
        yield draft
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
