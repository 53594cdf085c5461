"""The rows that are measured, kept beside the report so that an audit can go on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.report import finite


class Rows:
    """Finished rows in a file of JSON lines.

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
        with self._path.open("a", encoding="utf-8") as file:
            # A line of its own, whatever was left behind by a program that was killed.
            file.write("\n" + json.dumps({"key": key, **self._rows[key]}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def key_of(*parts: Mapping[str, Any]) -> str:
    """A name for what is measured and how, the same whenever both are."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]
