"""A net that can fail or take its process with it, and its training over local channels."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torchmetrics import Accuracy

import secretflow as sf
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.device import PYU
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator

FEATURES, CLASSES, ROWS, BATCH = 8, 3, 60, 4
ROUNDS = ROWS // BATCH
BROKEN_ROUND = 6
FAILS, DIES = 1e6, 2e6


class Net(nn.Module):
    """Fails, or takes its process with it, when it meets the number that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, 12)
        self.out = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x == FAILS).any():
            raise RuntimeError("this row cannot be learned")
        if (x == DIES).any():
            os._exit(1)
        return self.out(torch.relu(self.hidden(x)))


def make_model(devices: SimpleNamespace, **options: Any) -> FLModel:
    return model_of(Net, devices.carol, [devices.alice, devices.bob], **options)


def model_of(net: type[nn.Module], server: PYU, parties: list[PYU], **options: Any) -> FLModel:
    return FLModel(
        server=server,
        device_list=parties,
        model=TorchModel(
            net,
            nn.CrossEntropyLoss,
            optim_wrapper(optim.Adam, lr=1e-2),
            [metric_wrapper(Accuracy, task="multiclass", num_classes=CLASSES)],
        ),
        aggregator=SecurePruneAggregator(server, parties),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=1,
        **{"prune_end_rate": 0.3, "prune_percent": 30, **options},
    )


def make_data(
    devices: SimpleNamespace, of_bob: float | None = None, broken_round: int = BROKEN_ROUND
) -> dict[str, Any]:
    """Rows of both parties; ``of_bob`` stands in one of Bob's, in ``broken_round``."""
    x, y = {}, {}
    for seed, party in enumerate((devices.alice, devices.bob)):
        rows = np.random.default_rng(seed).normal(size=(ROWS, FEATURES)).astype(np.float32)
        labels = np.eye(CLASSES, dtype=np.float32)[rows[:, :CLASSES].argmax(axis=1)]
        if of_bob is not None and party == devices.bob:
            rows[(broken_round - 1) * BATCH] = of_bob
        x[party], y[party] = (party(lambda v=value: v)() for value in (rows, labels))
    return {name: FedNdarray(parts, PartitionWay.HORIZONTAL) for name, parts in (("x", x), ("y", y))}


def fitted(devices: SimpleNamespace, epochs: int = 3, **options: Any) -> tuple[FLModel, Any, list[Any]]:
    model = make_model(devices, **options)
    history = model.fit(**make_data(devices), batch_size=BATCH, epochs=epochs, verbose=0, random_seed=5)
    return model, history, sf.reveal([worker.get_weights() for worker in model._workers.values()])
