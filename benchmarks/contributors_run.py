"""One run of the benchmark of contributors: the real FLModel in SecretFlow's debug mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import nn, optim
from torchmetrics import Accuracy

from experiments import partition
from experiments.data import CLASSES, Images, as_images, as_labels
from experiments.dgl_utils import ConvNet
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.device import PYU
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator

SERVER = "server"
SPLITS = ("iid", "dirichlet")
SCOPES = ("local", "global")

_LABEL_SKEW = 0.5  # concentration of the Dirichlet distribution
_VALIDATION_BATCH = 500


class Cell(NamedTuple):
    """What is measured.

    Attributes:
        split: one of :data:`SPLITS`; "dirichlet" is label skew, see :mod:`experiments.partition`.
        scope: of the masks, one of :data:`SCOPES`: "local" for each party's own, "global", the default of
            ``FLModel``, for one mask for all.
        parties: how many hold data, at least 3.
        density: ``prune_end_rate``, in (0, 1].
        seed: of the initial weights, the rows, their split and their order.
    """

    split: str
    scope: str
    parties: int
    density: float
    seed: int


@dataclass(frozen=True)
class Recipe:
    """How the ConvNet is trained on MNIST; chosen on seeds that are not measured.

    One threshold over all layers spares the convolution of the small net, and weight decay keeps what is not
    needed small, so that its magnitude tells.

    Attributes:
        rows: training rows over all parties.
        epochs: passes over them, at least 2.
        prune_end_epoch: epochs after which the density is reached, from 1 to ``epochs``.
        test_rows: so many first of the dataset's test rows validate each epoch.
        learning_rate: of Adam, above 0.
        weight_decay: of Adam, added to the gradient as an L2 penalty, from 0 up.
        aggregate_freq: steps between two averages, at least 1.
        batch_size: mean rows in a party's batch; a party's part of it is its part of the rows.
    """

    rows: int = 10_000
    epochs: int = 8
    prune_end_epoch: int = 6
    test_rows: int = 10_000
    learning_rate: float = 1e-2
    weight_decay: float = 1e-3
    aggregate_freq: int = 10
    batch_size: int = 32


def party_names(parties: int) -> list[str]:
    """The names of so many parties; :data:`SERVER` holds no data."""
    return [f"party{number}" for number in range(parties)]


def train(cell: Cell, recipe: Recipe, images: Images, rules: Mapping[str, Any]) -> tuple[float, int]:
    """Trains and measures one cell.

    Args:
        cell: what is measured. SecretFlow is initialised with its :func:`party_names` and :data:`SERVER`.
        recipe: how it is trained.
        images: the whole dataset; the rows are drawn from its training rows, and its first test rows,
            dealt out evenly, validate each epoch.
        rules: arguments of the aggregator.

    Returns:
        The accuracy, in percent, the mean over the parties of that of the model each holds after the last
        epoch, and the bytes that one party has uploaded, on average.
    """
    parties = [PYU(name) for name in party_names(cell.parties)]
    rows, test = _share_out(cell, recipe, images, parties)
    history = _model(cell, recipe, parties, rules).fit(
        *rows,
        validation_data=test,
        epochs=recipe.epochs,
        batch_size=_VALIDATION_BATCH,
        batch_sampling_rate=_sampling_rate(cell, recipe),
        shuffle=True,
        aggregate_freq=recipe.aggregate_freq,
        random_seed=cell.seed,
        verbose=0,
    )
    found = history.global_history
    accuracy = 100 * float(found["val_multiclassaccuracy"][-1])
    return round(accuracy, 4), round(sum(found["payload_bytes"]) / cell.parties)


def _sampling_rate(cell: Cell, recipe: Recipe) -> float:
    """Part of its rows that a party takes for a batch: ``batch_size`` rows on average over the parties."""
    return recipe.batch_size * cell.parties / recipe.rows


def _share_out(
    cell: Cell, recipe: Recipe, images: Images, parties: Sequence[PYU]
) -> tuple[tuple[FedNdarray, FedNdarray], tuple[FedNdarray, FedNdarray]]:
    """Training and validation data; they do not depend on the density."""
    generator = np.random.default_rng(cell.seed)
    chosen = generator.permutation(len(images.x_train))[: recipe.rows]
    if cell.split == "iid":
        train = partition.iid(recipe.rows, cell.parties, generator)
    else:
        least = math.ceil(1 / _sampling_rate(cell, recipe))  # one row in each batch
        train = partition.dirichlet(images.y_train[chosen], cell.parties, _LABEL_SKEW, least, generator)
    test = partition.iid(min(recipe.test_rows, len(images.x_test)), cell.parties, generator)
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


def _model(cell: Cell, recipe: Recipe, parties: list[PYU], rules: Mapping[str, Any]) -> FLModel:
    server = PYU(SERVER)
    adam = optim_wrapper(optim.Adam, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    accuracy = metric_wrapper(Accuracy, task="multiclass", num_classes=CLASSES, average="micro")
    return FLModel(
        server=server,
        device_list=parties,
        model=TorchModel(ConvNet, nn.CrossEntropyLoss, adam, [accuracy]),
        backend="torch",
        aggregator=SecurePruneAggregator(server, parties, **rules),
        strategy="fed_avg_w_prune",
        random_seed=cell.seed,
        prune_end_rate=cell.density,
        prune_preset="lottery",
        mask_scope=cell.scope,
        prune_scope="global",
        prune_schedule="cubic",
        prune_end_epoch=recipe.prune_end_epoch,
        prune_freq=None,
    )
