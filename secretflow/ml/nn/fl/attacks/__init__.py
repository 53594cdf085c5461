"""Gradient inversion: what an attacker gets back from what it sees of federated training.

``capture`` writes what one party computed, ``observation`` says what an attacker has of it, ``dlg`` attacks
and ``scores`` compares with the truth. Needs torch alone; the scores need torchmetrics.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from secretflow.ml.nn.fl.attacks.capture import (
    Capture,
    GradientCapture,
    load_capture,
    write_capture,
)
from secretflow.ml.nn.fl.attacks.dlg import DLGSettings, dlg_attack
from secretflow.ml.nn.fl.attacks.observation import Frame, Observation, Reconstruction

__all__ = [
    "Capture",
    "DLGSettings",
    "Frame",
    "GradientCapture",
    "Observation",
    "Reconstruction",
    "dlg_attack",
    "load_capture",
    "write_capture",
]
