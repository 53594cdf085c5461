"""Two parties of unequal numbers of rows, and the models that they train."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import optim

import secretflow as sf
from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.ml.nn.fl.backend.torch.list_masks import ListMask
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.utils.simulation.data.ndarray import create_ndarray

from ..conftest import CLASSES, FEATURES, Mlp, model_def

ROWS = (40, 24)
BATCH = 10  # of the smaller party; the larger one's batches are as many, so they are larger
LR = 0.1


def data_of(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    return x, np.eye(CLASSES, dtype=np.float32)[x[:, :CLASSES].argmax(axis=1)]


@pytest.fixture
def parties(devices: SimpleNamespace) -> list[Any]:
    return [devices.alice, devices.bob]


@pytest.fixture
def data(parties: list[Any]) -> tuple[FedNdarray, FedNdarray]:
    arrays = [data_of(seed, rows) for seed, rows in enumerate(ROWS)]
    parts = {parties[0]: (0, ROWS[0]), parties[1]: (ROWS[0], sum(ROWS))}
    x, y = (np.concatenate(both) for both in zip(*arrays, strict=True))
    return create_ndarray(x, parts=parts, axis=0), create_ndarray(y, parts=parts, axis=0, is_label=True)


@pytest.fixture
def make_model(devices: SimpleNamespace, parties: list[Any]) -> Callable[..., FLModel]:
    def make(
        strategy: str = "fed_avg_w_prune",
        aggregator: Any = None,
        optimizer: Any = optim.SGD,
        **options: Any,
    ) -> FLModel:
        return FLModel(
            server=devices.carol,
            device_list=parties,
            model=model_def(Mlp, optim_wrapper(optimizer, lr=LR)),
            aggregator=aggregator or SecurePruneAggregator(devices.carol, parties),
            strategy=strategy,
            backend="torch",
            **{"random_seed": 5, **options},
        )

    return make


def weights_of(model: FLModel) -> list[list[np.ndarray]]:
    return [sf.reveal(worker.get_weights()) for worker in model._workers.values()]


def masks_of(model: FLModel) -> list[ListMask]:
    return [sf.reveal(worker.prune_state()[0]) for worker in model._workers.values()]
