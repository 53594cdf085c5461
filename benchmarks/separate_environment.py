"""Environments beside this one, for what cannot be installed into it, with this one's torch and numpy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path


def pinned(*packages: str) -> list[str]:
    """Requirements for the versions of packages that are installed here."""
    return [f"{name}=={version(name)}" for name in packages]


def separate_python(
    folder: Path, requirements: Sequence[str], finish: Callable[[Path], None] | None = None
) -> Path:
    """The interpreter of an environment, which is made if it is not there or has other requirements.

    Args:
        folder: where it is kept.
        requirements: what is installed into it, compiled, as pip does it.
        finish: changes what was installed; gets the folder of the packages.

    Raises:
        RuntimeError: uv is missing.
    """
    python = folder / "bin" / "python"
    ready = folder / "ready"
    wanted = list(requirements)
    if ready.exists() and ready.read_text(encoding="utf-8").splitlines() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise RuntimeError(f"uv is needed to make {folder.name}: make env brings it into .venv/bin")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *wanted], check=True
    )
    if finish is not None:
        finish(folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages")
    ready.write_text("\n".join(wanted), encoding="utf-8")
    return python
