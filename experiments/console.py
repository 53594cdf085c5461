"""What a run shows: a line for each stage, all else in a file."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

LOG = "log.txt"


class Console:
    """Keeps everything but its own lines off the console, what other processes and C code write included.

    Ray's processes, upstream's modules and libraries write to the file descriptors that they inherit, so
    these are turned into the file while the context lasts. After it they are what they were, so that an
    exception is seen.

    Args:
        log: the file that gets the rest; None shows all of it.
    """

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self._shown: TextIO = sys.stdout
        self._cleanup = ExitStack()
        self._started = time.perf_counter()

    @property
    def verbose(self) -> bool:
        """Whether everything is shown."""
        return self._log is None

    def __enter__(self) -> Console:
        if self._log is None:
            return self
        self._flush()
        file = self._cleanup.enter_context(self._log.open("w", encoding="utf-8", buffering=1))
        self._shown = self._cleanup.enter_context(os.fdopen(os.dup(1), "w", encoding="utf-8"))
        for descriptor in (1, 2):
            saved = os.dup(descriptor)
            os.dup2(file.fileno(), descriptor)
            self._cleanup.callback(os.close, saved)
            self._cleanup.callback(os.dup2, saved, descriptor)
        self._cleanup.callback(self._flush)
        for redirect in (redirect_stdout, redirect_stderr):  # a test or a notebook has its own
            self._cleanup.enter_context(redirect(file))
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()
        self._shown = sys.stdout

    def show(self, *lines: str) -> None:
        """Shows lines."""
        for line in lines:
            print(line, file=self._shown, flush=True)

    def stage(self, done: str) -> None:
        """Shows what has been done, behind the seconds since the start."""
        self.show(f"{time.perf_counter() - self._started:5.0f} s  {done}")

    @staticmethod
    def _flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(ValueError):  # closed
                stream.flush()
