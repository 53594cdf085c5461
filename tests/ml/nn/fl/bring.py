"""Brings a model and rows of one's own: two parties or more, of unequal size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn, optim

import secretflow as sf
from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, optim_wrapper
from secretflow.security.aggregation import PlainAggregator, SecurePruneAggregator
from secretflow.utils.simulation.data.ndarray import create_ndarray


def spread(devices: SimpleNamespace, rows: Sequence[int], array: np.ndarray) -> FedNdarray:
    """Gives alice, bob and so on so many rows each."""
    parties = [devices.alice, devices.bob, devices.carol][: len(rows)]
    ends = np.cumsum([0, *rows]).tolist()
    parts = {party: (ends[k], ends[k + 1]) for k, party in enumerate(parties)}
    return create_ndarray(array, parts=parts, axis=0)


def build(
    devices: SimpleNamespace,
    net: Callable[[], nn.Module],
    loss: Any = None,
    metrics: Sequence[Any] = (),
    *,
    strategy: str = "fed_avg_w_prune",
    parties: int = 2,
    lr: float = 0.1,
    aggregator: Any = None,
    **options: Any,
) -> FLModel:
    """A model of the first parties; pruning leaves it dense unless it is told otherwise."""
    members = [devices.alice, devices.bob, devices.carol][:parties]
    prunes = strategy == "fed_avg_w_prune"
    if prunes:
        options = {"prune_end_rate": 1, **options}
    plain = PlainAggregator(devices.carol)
    return FLModel(
        server=devices.carol,
        device_list=members,
        model=TorchModel(net, loss, optim_wrapper(optim.SGD, lr=lr), list(metrics)),
        aggregator=aggregator or (SecurePruneAggregator(devices.carol, members) if prunes else plain),
        strategy=strategy,
        backend="torch",
        **{"random_seed": 3, **options},
    )


def worker_of(model: FLModel, party: int = 0) -> Any:
    """A party's worker itself, which the ``devices`` fixture keeps in the test's own process."""
    return list(model._workers.values())[party].data._actor_handle


def predicted(model: FLModel, x: FedNdarray, **how: Any) -> list[torch.Tensor]:
    """Each party's predictions, stacked."""
    return [torch.stack(rows) for rows in sf.reveal(list(model.predict(x, **how).values()))]
