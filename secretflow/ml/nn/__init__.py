"""Neural networks: federated (``FLModel``) and split (``SLModel``) learning."""

from pkgutil import extend_path

from secretflow import _overlay

__path__ = extend_path(__path__, __name__)

__getattr__, __dir__, __all__ = _overlay.lazy(
    __name__,
    {
        "FLModel": "secretflow.ml.nn.fl.fl_model",
        "SLModel": "secretflow.ml.nn.sl.sl_model",
    },
)
