"""Gradient inversion: what an attacker gets back from what it sees of federated training.

``observation`` says what goes into an attack and what comes out. ``closed_form`` and ``averages`` read rows
off a first fully connected layer, ``spear`` inverts a batch there and ``cocktail`` unmixes it; ``grouping``
tells which rows that were read are of one party; ``neurons`` and ``tokens`` read off the
first layer of any net, ``imprint`` off one that a malicious server has chosen; ``adam_updates`` has the
gradient behind an update of Adam; ``dlg``, ``idlg``, ``inverting`` and ``prior_search`` search, as does
``own_masks`` where each party has a mask of its own; ``ridge`` and ``learned`` learn from
:class:`PublicRows` how a row follows from its gradient. Who has candidates asks ``candidates`` which one a
row is, and ``membership``, ``span`` and ``neuron_matches`` which are in a batch or an average. The other
modules are their parts. An attack gets an :class:`Observation` and nothing else; this package needs torch
alone and imports nothing of the project but the checks of arguments. The victim's side
and the scores are in :mod:`secretflow.ml.nn.fl.audit`.
"""

from importlib import import_module
from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from secretflow.ml.nn.fl.attacks.adam_updates import gradient_of_adam
from secretflow.ml.nn.fl.attacks.averages import Reading, distance_from_average, read_average
from secretflow.ml.nn.fl.attacks.candidates import compare_candidates
from secretflow.ml.nn.fl.attacks.closed_form import closed_form_attack
from secretflow.ml.nn.fl.attacks.cocktail import unmix_rows
from secretflow.ml.nn.fl.attacks.dlg import DLGSettings, dlg_attack
from secretflow.ml.nn.fl.attacks.gaussian import GaussianPrior, LocalPrior, fit_gaussian
from secretflow.ml.nn.fl.attacks.grouping import LayerRound, group_rows
from secretflow.ml.nn.fl.attacks.idlg import idlg_attack
from secretflow.ml.nn.fl.attacks.imprint import imprint_weights, read_imprint
from secretflow.ml.nn.fl.attacks.inverting import InvertingSettings, inverting_attack
from secretflow.ml.nn.fl.attacks.lbfgs import LBFGSSettings
from secretflow.ml.nn.fl.attacks.learned import LearnedInverter, LearnedSettings, fit_learned, learned_attack
from secretflow.ml.nn.fl.attacks.membership import candidate_scores
from secretflow.ml.nn.fl.attacks.neuron_matches import match_neurons
from secretflow.ml.nn.fl.attacks.neurons import read_neurons
from secretflow.ml.nn.fl.attacks.observation import Observation, Reconstruction, Snapshot
from secretflow.ml.nn.fl.attacks.own_masks import OwnMasksSettings, own_masks_attack
from secretflow.ml.nn.fl.attacks.prior_search import PriorSettings, prior_attack
from secretflow.ml.nn.fl.attacks.public import PublicRows
from secretflow.ml.nn.fl.attacks.ridge import RidgeInverter, RidgeSettings, fit_ridge, ridge_attack
from secretflow.ml.nn.fl.attacks.row_gradients import RowGradients, learn_row_gradients
from secretflow.ml.nn.fl.attacks.span import span_scores
from secretflow.ml.nn.fl.attacks.spear import SpearSettings, spear_attack
from secretflow.ml.nn.fl.attacks.tokens import token_attack

__all__ = [
    "DLGSettings",
    "GaussianPrior",
    "InvertingSettings",
    "LBFGSSettings",
    "LayerRound",
    "LearnedInverter",
    "LearnedSettings",
    "LocalPrior",
    "Observation",
    "OwnMasksSettings",
    "PriorSettings",
    "PublicRows",
    "Reading",
    "Reconstruction",
    "RidgeInverter",
    "RidgeSettings",
    "RowGradients",
    "Snapshot",
    "SpearSettings",
    "candidate_scores",
    "closed_form_attack",
    "compare_candidates",
    "distance_from_average",
    "dlg_attack",
    "fit_gaussian",
    "fit_learned",
    "fit_ridge",
    "gradient_of_adam",
    "group_rows",
    "idlg_attack",
    "imprint_weights",
    "inverting_attack",
    "learn_row_gradients",
    "learned_attack",
    "match_neurons",
    "own_masks_attack",
    "prior_attack",
    "read_average",
    "read_imprint",
    "read_neurons",
    "ridge_attack",
    "span_scores",
    "spear_attack",
    "token_attack",
    "unmix_rows",
]

_MOVED = {
    "CaptureRounds": "capture",
    "GradientCapture": "capture",
    "Capture": "capture_files",
    "load_capture": "capture_files",
    "optimizer_settings": "capture_files",
    "write_capture": "capture_files",
}
"""What is a party's own and could be imported from here before; loaded when asked for, never by an attack."""


def __getattr__(name: str) -> object:
    if name in _MOVED:
        return getattr(import_module(f"secretflow.ml.nn.fl.worker.{_MOVED[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
