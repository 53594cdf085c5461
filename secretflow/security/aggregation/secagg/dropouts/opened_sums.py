"""Of whom a party has helped to open sums of measurements, in a file that outlasts its process.

A party that forgot it could be had to help open a sum with and another one without a party, by being started
again in between, or twice at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from secretflow._atomic import PRIVATE, atomic_write

from ..errors import AggregationError

NAME = "opened_sums.json"

Parties = tuple[str, ...]
_Kind = TypeVar("_Kind")


class OpenedSums:
    """A party's own record.

    It holds names of parties and no numbers, and its owner alone may read it.

    Args:
        folder: the party's own, which need not be there; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / NAME

    def read(self) -> set[Parties]:
        """The names of the parties of each sum, sorted.

        Raises:
            AggregationError: the file is there and is no record, or others than this user could change it.
        """
        if self._path is None or not _is_own(self._path):
            return set()
        try:
            held = json.loads(self._path.read_bytes())
            return {tuple(sorted(_checked(parties, str))) for parties in _checked(held, list)}
        except (OSError, ValueError) as error:
            raise AggregationError(
                f"{self._path} must be the record of whom sums were opened, got what cannot be read "
                f"({error}); without it a sum could show one party's numbers: move it away only if all "
                "parties' rows are others now"
            ) from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lets no other process of the party write meanwhile.

        Raises:
            OSError: there can be no such folder.
        """
        if self._path is None:
            yield
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def add(self, sums: Iterable[Parties]) -> None:
        """Writes down of whom sums may be opened from now on; it is on the disk when this returns.

        Args:
            sums: the names of the parties of each, sorted. They must be :meth:`held` meanwhile.

        Raises:
            OSError: the file cannot be written.
        """
        if self._path is None:
            return
        before = self.read()
        after = before | set(sums)
        if after > before:
            with atomic_write(self._path, PRIVATE) as unfinished, unfinished.open("w") as file:
                json.dump(sorted(after), file)
                file.flush()
                os.fsync(file.fileno())


def _is_own(path: Path) -> bool:
    """Whether a file is there; if it is, or its folder, no other user may be able to change it.

    Raises:
        AggregationError: one is.
    """
    found = False
    for place, is_kind in ((path, stat.S_ISREG), (path.parent, stat.S_ISDIR)):
        try:
            status = place.stat(follow_symlinks=place is not path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        is_well = is_kind(status.st_mode) and status.st_uid in (os.geteuid(), 0)
        if (place is path and not is_well) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise AggregationError(
                f"{place} must be this user's own and open to no other user to write, got mode "
                f"{stat.S_IMODE(status.st_mode):04o} of user {status.st_uid}: others could have the party "
                "forget of whom sums were opened; run chmod go-w if you know that nobody has"
            )
        found |= place is path
    return found


def _checked(held: object, kind: type[_Kind]) -> list[_Kind]:
    """What must be a list of one kind.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(held, list) or not all(isinstance(entry, kind) for entry in held):
        raise ValueError(f"no list of {kind.__name__}")
    return held
