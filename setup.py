"""Puts the overlay into a folder of its own, and a .pth beside it that puts this folder in front of sys.path.

The overlay's package is named ``secretflow`` as upstream's is. Installed into ``site-packages`` it would
overwrite upstream's files; in a folder of its own it hides them, and uninstalling it gives them back.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

HERE = Path(__file__).resolve().parent
HOME = "secretflow_prune_overlay"
LINK_HOME = ".overlay"
PTH = "secretflow_prune.pth"

# site.py runs this line of the .pth file, in a virtual environment twice.
PUT_FIRST = "import os, sys; folder = {folder}; folder in sys.path or sys.path.insert(0, folder)\n"
# In that code ``sitedir`` is the folder of the .pth file.
IN_WHEEL = PUT_FIRST.format(folder=f"os.path.join(sys._getframe(1).f_locals['sitedir'], {HOME!r})")


class BuildPy(build_py):
    """Adds the .pth file to a wheel."""

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            return
        # A module left here by an earlier build, since deleted, would go on hiding upstream's.
        shutil.rmtree(Path(self.build_lib, HOME), ignore_errors=True)
        super().run()
        Path(self.build_lib, PTH).write_text(IN_WHEEL, encoding="utf-8")

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = list(super().get_outputs(include_bytecode))
        return outputs if self.editable_mode else [*outputs, str(Path(self.build_lib, PTH))]


class Link:
    """An editable installation: a wheel that holds nothing but a .pth, with a folder in the checkout.

    The folder holds nothing but a link to the overlay: with the checkout itself on the path, its other
    folders would hide a user's packages of the same names, and its ``egg-info`` would hide from pip what is
    installed. An import hook would do for Python, but not for type checkers.
    """

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, wheel: Any, files: list[str], mapping: dict[str, str]) -> None:
        folder = HERE / LINK_HOME
        link = folder / "secretflow"
        folder.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(Path("..", "secretflow"), target_is_directory=True)
        # In ASCII: site.py reads a .pth file in the locale's encoding, and stops at what it cannot read.
        wheel.writestr(PTH, PUT_FIRST.format(folder=ascii(str(folder))))


class EditableWheel(editable_wheel):
    """Makes ``pip install -e`` put the overlay in front of upstream, which a plain path would not."""

    def _select_strategy(self, *_: Any) -> Link:
        return Link()


# The full `secretflow==1.10.0b1` has the very files of secretflow-lite and serves as well, but no requirement
# can say "one of the two". Over it, install with `--no-deps`, then cryptography, numba, safetensors and tqdm:
# with secretflow-lite beside it, uninstalling either would take the files of both. The lower bounds are what
# the full one comes with.
DEPENDENCIES = [
    "secretflow-lite==1.10.0b1",  # upstream, without pins on TensorFlow and an old torch
    # From 2.13 on torch wants a setuptools that upstream does not allow, and pip would try each such release.
    "torch>=2.1,<2.13",  # the models; optimiser hooks keep pruned weights at zero
    "torchmetrics>=1.3",  # metrics of training and scores of attacks
    "numpy>=1.23,<2",  # masks and ring elements; upstream needs 1.x
    "scipy>=1.7",  # confidence intervals and assignments of the audit; upstream brings it
    "cryptography>=42",  # X25519, HKDF, AES for the pads
    "grpcio>=1.50",  # streams with TLS, keep-alive and deadlines between parties; RayFed has it
    "msgpack>=1.0",  # messages between parties: data, where pickle would be code; Ray has it
    "numba>=0.57",  # compiles the pass that encodes and pads large models
    "safetensors>=0.4",  # the container of exported sparse models
    "tqdm>=4.66",  # progress bars
]
# Upstream pins an sdc-sdk that has wheels for Python 3.10 alone. A checkout holds one without content for
# 3.11; a folder of a checkout is nowhere else, so a source distribution does not name it.
PLACEHOLDER = HERE / ".ci" / "sdc-sdk"
if PLACEHOLDER.is_dir():
    DEPENDENCIES.append(f"sdc-sdk @ {PLACEHOLDER.as_uri()} ; python_version == '3.11'")

packages = find_packages(include=["secretflow", "secretflow.*"])
setup(
    install_requires=DEPENDENCIES,
    # Here, because pyproject.toml takes an SPDX name from setuptools 77 on, and upstream wants one below 70.
    license="Apache-2.0",
    packages=[f"{HOME}.{package}" for package in packages],
    package_dir={HOME: "."},
    package_data={f"{HOME}.secretflow": ["py.typed"]},
    cmdclass={"build_py": BuildPy, "editable_wheel": EditableWheel},
)
