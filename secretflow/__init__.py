"""SecretFlow with pruning-based secure aggregation, laid over upstream's package of the same name.

The public names are upstream's. They are imported when they are first used, because upstream's
``import secretflow`` loads every component, and every Ray worker would pay for it again.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from secretflow import _overlay

if TYPE_CHECKING:
    from secretflow.device import init as init
    from secretflow.device import shutdown as shutdown

_overlay.check_python()
__path__ = _overlay.search_path(extend_path(__path__, __name__))

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
