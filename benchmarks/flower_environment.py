"""Flower in an environment of its own, with the versions of torch and numpy that the fork runs on."""

from __future__ import annotations

from pathlib import Path

from benchmarks.environment import ROOT
from benchmarks.separate_environment import pinned, separate_python

FLOWER = "flwr[simulation]==1.30.0"  # the last one for Python 3.10


def flower_python(folder: Path = ROOT / ".venv-flower") -> Path:
    """The interpreter of the environment, which is made if it is not there.

    Flower brings the version of Ray that it wants, which is not the fork's.

    Args:
        folder: where it is kept.
    """
    return separate_python(folder, [FLOWER, *pinned("torch", "torchmetrics", "numpy")])
