"""What the tests of a party share."""

from __future__ import annotations

import grpc
import pytest


@pytest.fixture(scope="session", autouse=True)
def _poller_of_grpc() -> None:
    """Keeps the thread of grpc's asyncio for the session.

    When the last of its users is collected, grpc waits for that thread to end. It does not end while a call
    that a test broke off is in its queue.
    """
    grpc.aio.init_grpc_aio()
