"""What a party's side of the aggregation takes: bytes uploaded and seconds of work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Usage:
    """Counts bytes and seconds.

    The few dozen bytes of each message's header and the 8 of its last number are not counted, nor is what
    a fit begins with, 24 bytes for each round of an epoch, nor what sums of metrics take over the network.
    """

    def __init__(self) -> None:
        self._round_bytes: list[int] = []
        self._agreement_bytes = 0
        self._seconds = 0.0

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Counts the seconds within; an error does not stop that."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - started

    def count_agreement(self, size: int) -> None:
        """Counts the bytes of an agreement; they belong to the round that it was made for."""
        self._agreement_bytes += size

    def count_round(self, size: int) -> None:
        """Counts the bytes of a sum or average."""
        self._round_bytes.append(size + self._agreement_bytes)
        self._agreement_bytes = 0

    def payload_bytes(self) -> int:
        """Bytes of ring elements and masks so far."""
        return sum(self._round_bytes) + self._agreement_bytes

    def round_bytes(self, first: int) -> list[int]:
        """Bytes of each sum or average from the ``first``-th on."""
        return self._round_bytes[first:]

    def take_seconds(self) -> float:
        """Seconds since this was asked last."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class _Used(Protocol):
    usage: Usage


def timed(method: _Method) -> _Method:
    """Counts the seconds of a method of an object that has a ``usage``."""

    @wraps(method)
    def counted(self: _Used, *arguments: Any, **options: Any) -> Any:
        with self.usage.timing():
            return method(self, *arguments, **options)

    return cast(_Method, counted)
