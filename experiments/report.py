"""The files of a run: their names, what an earlier run left, and ``report.json``."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.console import LOG
from experiments.settings import Settings
from secretflow._atomic import write_text
from secretflow.ml.nn.fl.audit.finished import finite

CAPTURE_DIR = "sf_output"
DENSE_CAPTURE_DIR = "sf_output/dense"
REPORT = "report.json"
BEFORE_PICTURE = "contrast_before_prune.jpg"
AFTER_PICTURE = "contrast_after_prune.jpg"
ATTACKERS_PICTURE = "contrast_of_attackers.jpg"
COMPARISON_PICTURE = "comparison_of_validation_accuracy.jpg"

_NUMBER = r"[0-9.e+-]+"
_OWN_FILES = {
    "": [
        rf"FL_Model_accuracy_convnet_{_NUMBER}_{_NUMBER}_mnist\.jpg",
        rf"FL_prune_{_NUMBER}_{_NUMBER}_Model_accuracy_convnet_{_NUMBER}_{_NUMBER}_mnist\.jpg",
        *(
            re.escape(name)
            for name in (REPORT, LOG, BEFORE_PICTURE, AFTER_PICTURE, ATTACKERS_PICTURE, COMPARISON_PICTURE)
        ),
    ],
    CAPTURE_DIR: [r"gradients[0-9]+\.npy", r"(x|y|weights|mask)\.pt", r"meta\.json"],
    DENSE_CAPTURE_DIR: [r"gradients[0-9]+\.npy", r"(x|y|weights|mask)\.pt", r"meta\.json"],
}
_PACKAGES = ("secretflow-prune", "secretflow-lite", "secretflow", "ray", "torch", "torchmetrics", "numpy")


def plain_picture(settings: Settings) -> str:
    """Name of the accuracy curve without pruning: that of the project's first experiment."""
    return f"FL_Model_accuracy_convnet_{settings.epochs}_{settings.batch_size}_mnist.jpg"


def pruned_picture(settings: Settings) -> str:
    """Name of the accuracy curve with pruning: that of the project's first experiment."""
    pruning = f"FL_prune_{settings.prune_end_rate:g}_{settings.prune_percent:g}"
    return f"{pruning}_Model_accuracy_convnet_{settings.epochs}_{settings.batch_size}_mnist.jpg"


def remove_stale(out: Path) -> list[Path]:
    """Removes what an earlier run of this program left, and nothing else.

    Args:
        out: folder of the runs.

    Returns:
        The files that were removed.
    """
    stale = [
        path
        for folder, patterns in _OWN_FILES.items()
        for path in sorted((out / folder).glob("*"))
        if path.is_file() and any(re.fullmatch(pattern, path.name) for pattern in patterns)
    ]
    for path in stale:
        path.unlink()
    return stale


class Report:
    """``report.json``, written anew whenever a part of it is known.

    Args:
        settings: of this run.
        data: what it is trained on.
    """

    def __init__(self, settings: Settings, data: Mapping[str, Any]) -> None:
        self._path = settings.out / REPORT
        self._content: dict[str, Any] = {
            "complete": False,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "settings": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in asdict(settings).items()
            },
            "versions": versions(),
            "data": dict(data),
            "training": {},
            "attack": {},
        }
        self._write()

    @property
    def content(self) -> Mapping[str, Any]:
        """What is known so far."""
        return self._content

    def training(self, name: str, **parts: Any) -> None:
        """Adds or replaces parts of what is known about one training run."""
        self._content["training"].setdefault(name, {}).update(parts)
        self._write()

    def attack(self, **parts: Any) -> None:
        """Adds or replaces parts of what is known about the attacks."""
        self._content["attack"].update(parts)
        self._write()

    def complete(self) -> None:
        """Marks the report as that of a run that was not broken off."""
        self._content["complete"] = True
        self._write()

    def _write(self) -> None:
        write_text(self._path, json.dumps(finite(self._content), indent=2, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that matter."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
