"""Devices. The public names are upstream's, imported when they are first used.

A Ray worker that runs a party's function needs :mod:`secretflow.device.device.pyu` alone; upstream's
``secretflow.device`` loads every kind of device with it, and each worker would pay for it again.
"""

import importlib
import sys
from pkgutil import extend_path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from secretflow import _overlay

if TYPE_CHECKING:
    from secretflow.device.proxy import proxy as proxy
    from secretflow.device.start import init as init
    from secretflow.device.start import shutdown as shutdown

__path__ = extend_path(__path__, __name__)

_of_device, __dir__, __all__ = _overlay.lazy(
    __name__,
    {
        **dict.fromkeys(
            (
                "Device",
                "DeviceObject",
                "DeviceType",
                "HEU",
                "HEUObject",
                "PYU",
                "PYUObject",
                "SPU",
                "SPUCompilerNumReturnsPolicy",
                "SPUIO",
                "SPUObject",
                "SPUValueMeta",
                "TEEU",
                "TEEUData",
                "TEEUObject",
                "heu_from_base_config",
                "register",
                "spu_fxp_precision",
                "spu_fxp_size",
            ),
            "secretflow.device.device",
        ),
        **dict.fromkeys(("init", "shutdown"), "secretflow.device.start"),
        **dict.fromkeys(("reveal", "to", "wait", "with_device"), "secretflow.device.driver"),
        "Link": "secretflow.device.link",
        "proxy": "secretflow.device.proxy",
    },
)


def __getattr__(name: str) -> Any:
    # Whoever asks for a public name may go on to move objects between devices, and how each is moved is
    # registered by these. They need submodules of this package themselves.
    if name in __all__ and name not in ("init", "shutdown"):
        importlib.import_module("secretflow.device.kernels")
    return _of_device(name)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module ``proxy`` would put it in the place of the function of that name.
        if name != "proxy" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
