"""Plain upstream in an environment of its own, with the versions of torch and numpy that the fork runs on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.environment import ROOT

UPSTREAM = "secretflow-lite==1.10.0b1"


def upstream_python(folder: Path = ROOT / ".venv-upstream") -> Path:
    """The interpreter of the environment, which is made if it is not there.

    Upstream's torch backend imports TensorFlow only to divide two numbers in its metrics, and it cannot be
    installed beside this torch and numpy. So that one module is replaced by the fork's, which gives the same
    results and spares upstream the start of TensorFlow.

    Args:
        folder: where it is kept.
    """
    python = folder / "bin" / "python"
    ready = folder / "ready"
    wanted = [UPSTREAM, *(f"{name}=={version(name)}" for name in ("torch", "torchmetrics", "numpy"))]
    if ready.exists() and ready.read_text(encoding="utf-8").splitlines() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise RuntimeError("uv is needed to make upstream's environment: make env brings it into .venv/bin")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *wanted], check=True
    )
    installed = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    shutil.copy(ROOT / "secretflow/ml/nn/metrics.py", installed / "secretflow/ml/nn/metrics.py")
    ready.write_text("\n".join(wanted), encoding="utf-8")
    return python
