"""What is measured, kept beside the report so that an audit can go on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secretflow._atomic import PRIVATE


class Finished:
    """Finished rows in a file of JSON lines that only its owner may read, for they may show private rows.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    self._rows[row.pop("key")] = row
                except (json.JSONDecodeError, KeyError, AttributeError):
                    continue  # what was being written when the program was killed

    def get(self, key: str) -> dict[str, Any] | None:
        """A finished row, or None."""
        return self._rows.get(key)

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Writes a row down before anything else happens.

        Args:
            key: from :func:`key_of`.
            row: what JSON can hold; NaN and infinity become null.
        """
        self._rows[key] = finite(dict(row))
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE)
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            # A line of its own, whatever was left behind by a program that was killed.
            file.write("\n" + json.dumps({"key": key, **self._rows[key]}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def key_of(*parts: Mapping[str, Any]) -> str:
    """A name for what is measured and how, the same whenever both are."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def finite(value: Any) -> Any:
    """Replaces NaN and infinity, which JSON does not have, by None, all the way down."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
