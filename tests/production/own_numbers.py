"""A training of three parties of unequal numbers of rows, over a network or in a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from torch import nn, optim
from torchmetrics import Accuracy
from torchmetrics.classification import MulticlassAUROC

from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.device import PYU
from secretflow.errors import ArgumentError, StateError
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator

CLASSES, FEATURES, BATCH = 3, 6, 19
ROWS = (4 * BATCH, 124, 92)  # the first has four batches, so the others have four, of 31 and of 23 rows


def rows_of(position: int, labels: bool) -> np.ndarray:
    """Features or labels of a party's rows; each party has classes that it has more of."""
    rng = np.random.default_rng(position)
    x = rng.normal(size=(ROWS[position], FEATURES)).astype(np.float32)
    x[:, position] += 1
    return np.eye(CLASSES, dtype=np.float32)[x[:, :CLASSES].argmax(axis=1)] if labels else x


def make(server: PYU, parties: Sequence[PYU]) -> tuple[FLModel, FedNdarray, FedNdarray]:
    """A model, features and labels."""
    x, y = (
        FedNdarray(
            {party: party(rows_of)(k, labels) for k, party in enumerate(parties)}, PartitionWay.HORIZONTAL
        )
        for labels in (False, True)
    )
    model = FLModel(
        server=server,
        device_list=list(parties),
        model=TorchModel(
            lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES)),
            nn.CrossEntropyLoss,
            optim_wrapper(optim.SGD, lr=0.1),
            [
                metric_wrapper(Accuracy, task="multiclass", num_classes=CLASSES),
                metric_wrapper(MulticlassAUROC, num_classes=CLASSES),  # keeps rows, so nothing adds up
            ],
        ),
        aggregator=SecurePruneAggregator(server, list(parties)),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=3,
        prune_end_rate=0.5,
        prune_percent=30,
    )
    return model, x, y


def train(server: PYU, parties: Sequence[PYU]) -> dict[str, Any]:
    """Trains and evaluates; what this driver is told of it, and of a fit that one party refuses."""
    model, x, y = make(server, parties)
    history = model.fit(x, y, validation_data=(x, y), epochs=2, batch_size=BATCH, random_seed=3, verbose=0)
    everybodys, own = model.evaluate(x, y, batch_size=50)
    with pytest.raises((ArgumentError, StateError)) as refused:
        model.fit(x, y, batch_size=ROWS[0] + 1, verbose=0)
    return {
        "global": {name: _plain(values) for name, values in history.global_history.items()},
        "local": {name: _plain(values) for name, values in history.local_history.items()},
        "evaluated": {metric.name: float(metric) for metric in everybodys},
        "evaluated own": {name: {m.name: float(m) for m in metrics} for name, metrics in own.items()},
        "refused": str(refused.value),
    }


def _plain(values: Sequence[Any]) -> list[Any]:
    return [value if isinstance(value, list) else float(value) for value in values]
