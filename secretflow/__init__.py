"""SecretFlow with pruning-based secure aggregation, laid over upstream's package of the same name.

The public names are upstream's. They are imported when they are first used, because upstream's
``import secretflow`` loads every component, and every Ray worker would pay for it again.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from secretflow import _overlay

_overlay.install()

_SUBPACKAGES = (
    "component",
    "data",
    "device",
    "ic",
    "kuscia",
    "ml",
    "preprocessing",
    "security",
    "utils",
)
_DEVICE_NAMES = (
    "HEU",
    "PYU",
    "SPU",
    "TEEU",
    "Device",
    "DeviceObject",
    "HEUObject",
    "PYUObject",
    "SPUObject",
    "init",
    "proxy",
    "reveal",
    "shutdown",
    "to",
    "wait",
)

__getattr__, __dir__, __all__ = _overlay.lazy(
    __name__,
    {
        **dict.fromkeys(_SUBPACKAGES, ""),
        **dict.fromkeys(_DEVICE_NAMES, "secretflow.device"),
        "__version__": "secretflow.version",
    },
)
__all__.remove("__version__")
