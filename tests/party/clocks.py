"""An authority whose clock is ahead of the parties'."""

from __future__ import annotations

import datetime

import pytest


def put_authority_ahead(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """Has certificates be made by a clock that is ahead, until the patch is undone."""

    class Ahead(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Ahead:
            return super().now(tz) + datetime.timedelta(hours=hours)

    monkeypatch.setattr(datetime, "datetime", Ahead)
