"""Torch strategies of federated learning; importing this package registers them by name."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from .fed_avg_g import PYUFedAvgG  # noqa: E402
from .fed_avg_u import PYUFedAvgU  # noqa: E402
from .fed_avg_w import PYUFedAvgW  # noqa: E402
from .fed_avg_w_prune import PYUFedAvgWPrune  # noqa: E402
from .fed_prox import PYUFedProx  # noqa: E402
from .fed_scr import PYUFedSCR  # noqa: E402
from .fed_stc import PYUFedSTC  # noqa: E402
from .scaffold import PYUScaffold  # noqa: E402

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
