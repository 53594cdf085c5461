"""Channels that are closed and threads that are ended after a test."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .sockets import Pair, make_pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    both = make_pair()
    yield both
    for end in both:
        end.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool
