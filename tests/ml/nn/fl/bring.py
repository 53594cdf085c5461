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

FEATURES, CLASSES = 4, 3
RNG = np.random.default_rng(3)


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


def table(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of so many rows, and the numbers of their classes."""
    x = RNG.normal(size=(rows, FEATURES)).astype(np.float32)
    return x, x[:, :CLASSES].argmax(1)


def linear() -> nn.Module:
    """One layer."""
    return nn.Linear(FEATURES, CLASSES)


def fitted(
    devices: SimpleNamespace, rows: tuple[int, ...], net: Any, loss: Any = None, **fit: Any
) -> FLModel:
    """A model of parties with so many rows, trained; ``options`` are the model's, ``y`` other labels."""
    x, y = table(sum(rows))
    options, y = fit.pop("options", {}), fit.pop("y", y)
    model = build(devices, net, loss, parties=len(rows), **options)
    how = {"batch_size": 5, "verbose": 0, "random_seed": 1, **fit}
    model.fit(spread(devices, rows, x), spread(devices, rows, y), **how)
    return model


def weights_of(model: FLModel) -> list[np.ndarray]:
    """All parties' weights, one party after the other."""
    return [array for worker in model._workers.values() for array in sf.reveal(worker.get_weights())]
