"""Memory of a process with all that it starts, as it goes."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType

_SECONDS = 0.5
_PART = 25
"""So much longer than a look takes, which stops the processes it looks at, nobody looks: 4 % of the time."""


class PeakMemory:
    """The most memory that this process and its descendants have had at once, while it is entered.

    Pages that processes share are counted once (the proportional set size of Linux), those of Ray's object
    store among them.

    Attributes:
        peak: bytes.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="memory")

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = _SECONDS
        while not self._over.wait(pause):
            started = time.perf_counter()
            self.peak = max(self.peak, sum(map(proportional_bytes, family(os.getpid()))))
            pause = max(_SECONDS, _PART * (time.perf_counter() - started))


def family(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name of the program, in brackets, may hold anything.
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        children[parent].append(int(folder.name))
    found = [root]
    for process in found:
        found += children[process]
    return found


def proportional_bytes(process: int) -> int:
    """The proportional set size of a process; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
