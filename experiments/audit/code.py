"""Which program measured a row, so that rows of an older one are not taken for those of this one."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import experiments
from experiments.audit import __path__ as audit
from secretflow.ml.nn.fl import attacks

_PARTS = ("accuracy.py", "attack_cell.py", "data.py", "noise.py")
_NETS = "dgl_utils.py"
_NOT_ATTACKS = ("capture.py", "__init__.py")


@cache
def digest_of_code() -> str:
    """A name for the source of attacks, defences, scores, nets and data, another when any of it changes."""
    files = [
        *(path for path in Path(attacks.__file__).parent.glob("*.py") if path.name not in _NOT_ATTACKS),
        *(Path(audit[0]) / name for name in _PARTS),
        Path(experiments.__file__).parent / _NETS,
    ]
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
