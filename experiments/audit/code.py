"""Which program measured a row, so that rows of an older one are not taken for those of this one."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import experiments
from experiments.audit import __path__ as audit
from secretflow.ml.nn.fl import attacks, pruning
from secretflow.ml.nn.fl import audit as victim
from secretflow.ml.nn.fl.backend.torch import masked_model, withholding

_PARTS = ("accuracy.py", "attack_cell.py", "data.py", "effort.py", "noise.py", "scoring.py")
_VICTIM = ("captured.py", "defences.py", "intervals.py", "padded.py", "scores.py", "views.py")
_NETS = "dgl_utils.py"


@cache
def digest_of_code() -> str:
    """A name for the source of attacks, defences, scores, nets and data, another when any of it changes."""
    files = [
        *(path for room in (attacks, pruning) for path in Path(room.__path__[0]).glob("[!_]*.py")),
        *(Path(victim.__path__[0]) / name for name in _VICTIM),
        *(Path(str(module.__file__)) for module in (masked_model, withholding)),
        *(Path(audit[0]) / name for name in _PARTS),
        Path(experiments.__file__).parent / _NETS,
    ]
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
