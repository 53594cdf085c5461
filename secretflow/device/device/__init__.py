"""The kinds of devices. The public names are upstream's, imported when they are first used."""

from pkgutil import extend_path

from secretflow import _overlay

__path__ = extend_path(__path__, __name__)

# Now, because importing the module would put it in the place of the function of the same name.
from .register import DeviceType as DeviceType
from .register import register as register

__getattr__, __dir__, __all__ = _overlay.lazy(
    __name__,
    {
        **dict.fromkeys(("Device", "DeviceObject"), "secretflow.device.device.base"),
        **dict.fromkeys(("HEU", "heu_from_base_config"), "secretflow.device.device.heu"),
        "HEUObject": "secretflow.device.device.heu_object",
        **dict.fromkeys(("PYU", "PYUObject"), "secretflow.device.device.pyu"),
        **dict.fromkeys(
            ("SPU", "SPUCompilerNumReturnsPolicy", "SPUIO", "SPUObject", "SPUValueMeta"),
            "secretflow.device.device.spu",
        ),
        **dict.fromkeys(("TEEU", "TEEUData", "TEEUObject"), "secretflow.device.device.teeu"),
        **dict.fromkeys(("spu_fxp_precision", "spu_fxp_size"), "secretflow.device.device.type_traits"),
    },
)
