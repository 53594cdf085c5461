"""Neural networks: federated (``FLModel``) and split (``SLModel``) learning."""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from secretflow import _overlay

if TYPE_CHECKING:
    from secretflow.ml.nn.fl.fl_model import FLModel as FLModel

__path__ = extend_path(__path__, __name__)

__getattr__, __dir__, __all__ = _overlay.lazy(
    __name__,
    {
        "FLModel": "secretflow.ml.nn.fl.fl_model",
        "SLModel": "secretflow.ml.nn.sl.sl_model",
    },
)
