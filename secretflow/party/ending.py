"""How a party's program ends before its training does: soon, whatever it waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ray
from fed._private.global_context import get_global_context

_SECONDS_TO_END = 20.0
_SECONDS_BETWEEN_LOOKS = 1.0
_ENDED_BY_SIGNAL = 128
"""What shells add to the number of a signal for the status of a program that it has ended."""

_NEEDED = ("gcs_server", "raylet")
"""Processes of Ray without which nothing goes on; Ray itself tells after a minute, or with a broken pipe."""


class Ending:
    """Ends this program when it is told to, when it could not send, and when its Ray has lost a process.

    The program then does what it always does at its end. If that takes long, or at a second signal, it is
    ended as it is; its Ray ends with it.
    """

    def __init__(self) -> None:
        self._lost = ""  # what Ray has lost
        self._status: int | None = None  # with which the program ends, if it does before its time

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watches as long as the context lasts, in the main thread; Ray and RayFed must run."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._begin)
        node: Any = ray._private.worker._global_node
        needed = {kind: node.all_processes[kind][0].process for kind in _NEEDED}
        over = threading.Event()
        threading.Thread(target=self._watch, args=(needed, over), daemon=True, name="watch over Ray").start()
        try:
            yield
        except BaseException:
            if self._status is None:
                raise
            raise SystemExit(self._status) from None  # Ray makes 1 of it, and what is cut off may have errors
        finally:
            over.set()  # before Ray is shut down

    def _watch(self, needed: Mapping[str, subprocess.Popen[bytes]], over: threading.Event) -> None:
        while not over.wait(_SECONDS_BETWEEN_LOOKS):
            for kind, process in needed.items():
                if process.poll() is not None:
                    self._lost = f"{kind}, a process of this party's Ray, has ended (status {process.poll()})"
                    os.kill(os.getpid(), signal.SIGINT)  # only the main thread can be interrupted
                    return

    def _begin(self, number: int, _: FrameType | None) -> None:
        why, status = self._lost, 1
        if not why and number == signal.SIGINT and _could_not_send():
            why = "a value could not be sent to another party, which has ended or is cut off"
        if not why:
            why, status = f"told to end by {signal.Signals(number).name}", _ENDED_BY_SIGNAL + number
        self._status = status
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda *_: os._exit(status))
        threading.Thread(target=_end_at_last, args=(status,), daemon=True).start()
        _say(f"{why}: ends within {_SECONDS_TO_END:g} seconds")
        raise SystemExit(status)


def _could_not_send() -> bool:
    """Whether RayFed has sent the SIGINT itself, as it does to have the main thread end."""
    context = get_global_context()
    return context is not None and not context._atomic_shutdown_flag


def _end_at_last(status: int) -> None:
    time.sleep(_SECONDS_TO_END)
    _say(f"has not ended within {_SECONDS_TO_END:g} seconds, and is ended")
    os._exit(status)


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())  # print may have been interrupted, and would fail
