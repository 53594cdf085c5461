"""Gradient inversion: what an attacker gets back from what it sees of federated training.

``observation`` says what goes into an attack and what comes out; ``views`` makes it from what a party
computes, for each thing an attacker may see and know; ``dlg``, ``idlg``, ``inverting`` and ``closed_form``
attack; ``scores`` compares with the truth; ``defences`` are what is done to an upload first; ``capture``
writes what one party computed. ``objective``, ``restarts``, ``lbfgs`` and ``adam`` are their parts.
Needs torch alone; the scores need torchmetrics and scipy, ``padded`` needs this project's aggregator.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from secretflow.ml.nn.fl.attacks.capture import (
    Capture,
    CaptureRounds,
    GradientCapture,
    load_capture,
    optimizer_settings,
    write_capture,
)
from secretflow.ml.nn.fl.attacks.closed_form import closed_form_attack
from secretflow.ml.nn.fl.attacks.dlg import DLGSettings, dlg_attack
from secretflow.ml.nn.fl.attacks.idlg import idlg_attack
from secretflow.ml.nn.fl.attacks.inverting import InvertingSettings, inverting_attack
from secretflow.ml.nn.fl.attacks.lbfgs import LBFGSSettings
from secretflow.ml.nn.fl.attacks.observation import Observation, Reconstruction, Snapshot

__all__ = [
    "Capture",
    "CaptureRounds",
    "DLGSettings",
    "Snapshot",
    "GradientCapture",
    "InvertingSettings",
    "LBFGSSettings",
    "Observation",
    "Reconstruction",
    "closed_form_attack",
    "dlg_attack",
    "idlg_attack",
    "inverting_attack",
    "load_capture",
    "optimizer_settings",
    "write_capture",
]
