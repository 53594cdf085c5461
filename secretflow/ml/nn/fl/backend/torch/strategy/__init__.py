"""Torch strategies of federated learning; importing this package registers them by name."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from .fed_avg_g import PYUFedAvgG
from .fed_avg_u import PYUFedAvgU
from .fed_avg_w import PYUFedAvgW
from .fed_avg_w_prune import PYUFedAvgWPrune
from .fed_prox import PYUFedProx
from .fed_scr import PYUFedSCR
from .fed_stc import PYUFedSTC
from .scaffold import PYUScaffold

__all__ = [
    "PYUFedAvgG",
    "PYUFedAvgU",
    "PYUFedAvgW",
    "PYUFedAvgWPrune",
    "PYUFedProx",
    "PYUFedSCR",
    "PYUFedSTC",
    "PYUScaffold",
]
