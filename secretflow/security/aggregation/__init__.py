"""Aggregators: upstream's, and :class:`SecurePruneAggregator`."""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from secretflow import _overlay

if TYPE_CHECKING:
    from secretflow.security.aggregation.secure_prune_aggregator import (
        SecurePruneAggregator as SecurePruneAggregator,
    )

__path__ = extend_path(__path__, __name__)

__getattr__, __dir__, __all__ = _overlay.lazy(
    __name__,
    {
        "Aggregator": "secretflow.security.aggregation.aggregator",
        "PlainAggregator": "secretflow.security.aggregation.plain_aggregator",
        "SPUAggregator": "secretflow.security.aggregation.spu_aggregator",
        "SecureAggregator": "secretflow.security.aggregation.secure_aggregator",
        "SecurePruneAggregator": "secretflow.security.aggregation.secure_prune_aggregator",
        "SparsePlainAggregator": "secretflow.security.aggregation.sparse_plain_aggregator",
    },
)
