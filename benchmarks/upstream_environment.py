"""Plain upstream in an environment of its own, on the same torch, metrics and numpy as the fork."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.environment import ROOT
from benchmarks.separate_environment import pinned, separate_python

UPSTREAM = "secretflow-lite==1.10.0b1"


def upstream_python(folder: Path = ROOT / ".venv-upstream") -> Path:
    """The interpreter of the environment, which is made if it is not there.

    Upstream's torch backend imports TensorFlow only to divide two numbers in its metrics, and it cannot be
    installed beside this torch and numpy. So that one module is replaced by the fork's, which gives the same
    results and spares upstream the start of TensorFlow.

    Args:
        folder: where it is kept.
    """
    # torchmetrics imports matplotlib where there is one: a tenth of what either side imports at its start.
    requirements = [UPSTREAM, *pinned("torch", "torchmetrics", "numpy", "matplotlib")]
    return separate_python(folder, requirements, finish=_without_tensorflow)


def _without_tensorflow(packages: Path) -> None:
    shutil.copy(ROOT / "secretflow/ml/nn/metrics.py", packages / "secretflow/ml/nn/metrics.py")
