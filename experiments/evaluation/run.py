"""One run: the real FLModel on SecretFlow's debug mode, all parties in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn, optim
from torchmetrics import Accuracy

from experiments.data import CLASSES, Images, as_images, as_labels
from experiments.dgl_utils import ConvNet, FedAvgCNN
from experiments.evaluation import partition
from experiments.evaluation.grid import DENSE, Case, Recipe
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.device import PYU
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.security.aggregation import PlainAggregator, SecurePruneAggregator

NETS: dict[str, Callable[[], nn.Module]] = {"convnet": ConvNet, "fedavg-cnn": FedAvgCNN}
OPTIMIZERS = {"adam": optim.Adam, "sgd": optim.SGD}
SERVER = "server"

_VALIDATION_BATCH = 500
_DEFAULTS: Mapping[str, Any] = MappingProxyType({})
_DENSE_BYTES = 4


def party_names(parties: int) -> list[str]:
    """The names of so many parties; :data:`SERVER` holds no data."""
    return [f"party{number}" for number in range(parties)]


def run_case(
    case: Case, recipe: Recipe, images: Images, rules: Mapping[str, Any] = _DEFAULTS
) -> dict[str, Any]:
    """Trains and measures one case.

    Args:
        case: what is measured. SecretFlow is initialised with its :func:`party_names` and :data:`SERVER`.
        recipe: how it is trained.
        images: the whole dataset; the rows are drawn from its training rows, and its first test rows,
            dealt out evenly, validate each epoch.
        rules: arguments of the aggregator of a pruned run.

    Returns:
        A row of the results. ``accuracy`` is the mean over the parties of that of the model each holds
        after the last epoch, in percent; ``bytes`` is what one party has uploaded, on average; ``curve`` has
        both after each epoch; ``seconds`` are those of the processor, for training and validation.
    """
    parties = [PYU(name) for name in party_names(case.parties)]
    train, test = _share_out(case, recipe, images, parties)
    model = _model(case, recipe, parties, rules)
    started = time.process_time()  # other programs on the machine do not count
    history = model.fit(
        *train,
        validation_data=test,
        epochs=recipe.epochs,
        batch_size=_VALIDATION_BATCH,
        batch_sampling_rate=_sampling_rate(case, recipe),
        shuffle=True,
        aggregate_freq=recipe.aggregate_freq,
        random_seed=case.seed,
        verbose=0,
    )
    seconds = time.process_time() - started
    accuracy = [100 * float(value) for value in history.global_history["val_multiclassaccuracy"]]
    uploaded = np.cumsum(
        _dense_epoch_bytes(case, recipe)
        if case.strategy == DENSE
        else np.array(history.global_history["payload_bytes"]) / case.parties
    )
    return {
        **case._asdict(),
        "accuracy": round(accuracy[-1], 4),
        "bytes": round(float(uploaded[-1])),
        "seconds": round(seconds, 2),
        **asdict(recipe),
        "curve": [
            [round(value, 4), round(float(size))] for value, size in zip(accuracy, uploaded, strict=True)
        ],
    }


def _sampling_rate(case: Case, recipe: Recipe) -> float:
    """Part of its rows that a party takes for a batch: ``batch_size`` rows on average over the parties."""
    return recipe.batch_size * case.parties / recipe.rows


def _dense_epoch_bytes(case: Case, recipe: Recipe) -> np.ndarray:
    """Bytes that one party uploads in each epoch without pruning: 4 for each parameter in each round."""
    rounds = math.ceil(math.ceil(1 / _sampling_rate(case, recipe)) / recipe.aggregate_freq)
    parameters = sum(parameter.numel() for parameter in NETS[case.model]().parameters())
    return np.full(recipe.epochs, _DENSE_BYTES * parameters * rounds)


def _share_out(
    case: Case, recipe: Recipe, images: Images, parties: Sequence[PYU]
) -> tuple[tuple[FedNdarray, FedNdarray], tuple[FedNdarray, FedNdarray]]:
    """Training and validation data; they depend on neither the method nor the density."""
    generator = np.random.default_rng(case.seed)
    chosen = generator.permutation(len(images.x_train))[: recipe.rows]
    if case.split == "iid":
        train = partition.iid(recipe.rows, case.parties, generator)
    else:
        least = math.ceil(1 / _sampling_rate(case, recipe))  # one row in each batch
        train = partition.dirichlet(
            images.y_train[chosen], case.parties, partition.LABEL_SKEW, least, generator
        )
    test = partition.iid(min(recipe.test_rows, len(images.x_test)), case.parties, generator)
    return (
        _held(images.x_train, images.y_train, [chosen[rows] for rows in train], parties),
        _held(images.x_test, images.y_test, test, parties),
    )


def _held(
    x: np.ndarray, y: np.ndarray, shares: Sequence[np.ndarray], parties: Sequence[PYU]
) -> tuple[FedNdarray, FedNdarray]:
    features = {party: party(as_images)(x[rows]) for party, rows in zip(parties, shares, strict=True)}
    labels = {party: party(as_labels)(y[rows]) for party, rows in zip(parties, shares, strict=True)}
    return (
        FedNdarray(partitions=features, partition_way=PartitionWay.HORIZONTAL),
        FedNdarray(partitions=labels, partition_way=PartitionWay.HORIZONTAL),
    )


def _model(case: Case, recipe: Recipe, parties: list[PYU], rules: Mapping[str, Any]) -> FLModel:
    server = PYU(SERVER)
    common = {
        "server": server,
        "device_list": parties,
        "model": TorchModel(
            model_fn=NETS[case.model],
            loss_fn=nn.CrossEntropyLoss,
            optim_fn=optim_wrapper(
                OPTIMIZERS[recipe.optimizer], lr=recipe.learning_rate, weight_decay=recipe.weight_decay
            ),
            metrics=[metric_wrapper(Accuracy, task="multiclass", num_classes=CLASSES, average="micro")],
        ),
        "strategy": case.strategy,
        "backend": "torch",
        "random_seed": case.seed,
    }
    if case.strategy == DENSE:
        return FLModel(aggregator=PlainAggregator(server), **common)
    return FLModel(
        aggregator=SecurePruneAggregator(server, parties, **rules),
        prune_end_rate=case.density,
        prune_preset="lottery",
        mask_scope=case.scope,
        prune_scope="global",
        prune_schedule="cubic",
        prune_end_epoch=recipe.prune_end_epoch,
        prune_freq=recipe.prune_freq,
        regrow_percent=recipe.regrow_percent,
        **common,
    )
