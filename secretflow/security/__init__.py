"""Secure aggregation and comparison."""

from pkgutil import extend_path

from secretflow import _overlay

__path__ = extend_path(__path__, __name__)

__getattr__, __dir__, __all__ = _overlay.lazy(
    __name__,
    {
        **dict.fromkeys(
            ("Aggregator", "PlainAggregator", "SecureAggregator", "SPUAggregator"),
            "secretflow.security.aggregation",
        ),
        **dict.fromkeys(
            ("Comparator", "DeviceComparator", "PlainComparator", "SPUComparator"),
            "secretflow.security.compare",
        ),
    },
)
