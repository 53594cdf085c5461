"""A small classification task for two parties, and the nets that learn it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torchmetrics import Accuracy

from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.utils.simulation.data.ndarray import create_ndarray

FEATURES, CLASSES, ROWS_EACH = 8, 3, 40


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, 6)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.hidden(x)))


class NormedMlp(nn.Module):
    """An MLP with float and integer statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, 6)
        self.norm = nn.BatchNorm1d(6)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.norm(self.hidden(x))))


@dataclass
class Task:
    """Rows of two parties that hold the same numbers, so that equal seeds give equal models."""

    x: FedNdarray
    y: FedNdarray
    make_model: Callable[..., FLModel]


def model_def(net: Callable[[], nn.Module] = Mlp, optimizer: Callable[..., Any] | None = None) -> TorchModel:
    return TorchModel(
        net,
        nn.CrossEntropyLoss,
        optimizer or optim_wrapper(optim.Adam, lr=1e-2),
        [metric_wrapper(Accuracy, task="multiclass", num_classes=CLASSES)],
    )


@pytest.fixture
def task(devices: SimpleNamespace) -> Task:
    rng = np.random.default_rng(7)
    half = rng.normal(size=(ROWS_EACH, FEATURES)).astype(np.float32)
    labels = np.eye(CLASSES)[half[:, :CLASSES].argmax(axis=1)]
    parts = {devices.alice: 0.5, devices.bob: 0.5}
    x = create_ndarray(np.concatenate([half, half]), parts=parts, axis=0)
    y = create_ndarray(np.concatenate([labels, labels]), parts=parts, axis=0, is_label=True)

    def make_model(
        net: Callable[[], nn.Module] = Mlp,
        optimizer: Callable[..., Any] | None = None,
        aggregator_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> FLModel:
        parties = [devices.alice, devices.bob]
        return FLModel(
            server=devices.carol,
            device_list=parties,
            aggregator=SecurePruneAggregator(devices.carol, parties, **(aggregator_options or {})),
            strategy="fed_avg_w_prune",
            backend="torch",
            **{
                "model": model_def(net, optimizer),
                "random_seed": 11,
                "prune_end_rate": 0.3,
                "prune_percent": 40,
                **options,
            },
        )

    return Task(x, y, make_model)
