"""The tasks: rows, nets, recipes and splits. Nothing is downloaded."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn import datasets
from torch import nn

from experiments import partition
from experiments.data import load_images
from experiments.dgl_utils import ConvNet, FedAvgCNN
from experiments.sparse.engine import Data, Recipe
from experiments.sparse.nets import Lstm, ResNet20, TableNet

NETS: dict[str, Callable[[], nn.Module]] = {
    "convnet": ConvNet,
    "fedavg-cnn": FedAvgCNN,
    "resnet20": ResNet20,
    "lstm": Lstm,
    "table-net": TableNet,
}
SPLITS = ("iid", "unequal", "dirichlet-0.5", "dirichlet-0.1")

_IMAGE_ROWS = 12_000
_ROUNDS_OF_EPOCH = 4
_BATCH = {"digits": 8, "breast-cancer": 4}
_WEIGHT_DECAY = {"convnet": 1e-3, "lstm": 0.0}
EPOCHS = 20


def rows_of(dataset: str) -> int:
    """Training rows of a run, over all parties."""
    return {"digits": 1_437, "breast-cancer": 455}.get(dataset, _IMAGE_ROWS)


def recipe_of(dataset: str, model: str, parties: int, optimizer: str, learning_rate: float) -> Recipe:
    """How a task is trained: 20 epochs of four rounds each, however many parties there are.

    Args:
        dataset: "mnist", "fashion-mnist", "digits" or "breast-cancer".
        model: of :data:`NETS`.
        parties: how many.
        optimizer: see :class:`~experiments.sparse.engine.Recipe`.
        learning_rate: of the optimiser.
    """
    batch = _BATCH.get(dataset, 32)
    steps = math.ceil(rows_of(dataset) / (batch * parties))
    weight_decay = _WEIGHT_DECAY.get(model, 1e-4)
    return Recipe(EPOCHS, math.ceil(steps / _ROUNDS_OF_EPOCH), batch, optimizer, learning_rate, weight_decay)


def load(dataset: str, fashion_mnist: Path | None = None) -> Data:
    """All rows of a dataset, on the CPU.

    Args:
        dataset: "mnist", "fashion-mnist", "digits" or "breast-cancer".
        fashion_mnist: folder of its four IDX files; None is where Debian's package puts them.
    """
    if dataset in ("mnist", "fashion-mnist"):
        folder = None if dataset == "mnist" else fashion_mnist or Path("/usr/share/datasets/fashion-mnist")
        images = load_images(folder)
        x, x_test = (
            torch.from_numpy(part[:, None].astype(np.float32) / np.float32(255))
            for part in (images.x_train, images.x_test)
        )
        y, y_test = (torch.from_numpy(part.astype(np.int64)) for part in (images.y_train, images.y_test))
        return Data(x, y, x_test, y_test)
    loaded = datasets.load_digits() if dataset == "digits" else datasets.load_breast_cancer()
    features, labels = loaded.data.astype(np.float32), loaded.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[: rows_of(dataset)], order[rows_of(dataset) :]
    if dataset == "digits":
        features = (features / 16).reshape(-1, 8, 8)
    else:
        features = (features - features[train].mean(0)) / features[train].std(0)
    return Data(
        *(torch.from_numpy(part) for rows in (train, test) for part in (features[rows], labels[rows]))
    )


def split(labels: np.ndarray, dataset: str, how: str, parties: int, seed: int) -> list[np.ndarray]:
    """Which rows each party holds.

    Args:
        labels: of all training rows.
        dataset: "mnist", "fashion-mnist", "digits" or "breast-cancer".
        how: of :data:`SPLITS`; "unequal" is IID, and every third party has a tenth of the others' rows.
        parties: how many.
        seed: of the rows that are drawn, and of the split.

    Returns:
        Row numbers of each party.
    """
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(labels))[: rows_of(dataset)]
    if how == "iid":
        parts = partition.iid(len(chosen), parties, generator)
    elif how == "unequal":
        sizes = np.array([0.1 if k % 3 == 2 else 1.0 for k in range(parties)])
        ends = np.rint(np.cumsum(sizes) / sizes.sum() * len(chosen)).astype(int)[:-1]
        parts = np.split(generator.permutation(len(chosen)), ends)
    else:
        least = math.ceil(rows_of(dataset) / (_BATCH.get(dataset, 32) * parties))
        concentration = float(how.removeprefix("dirichlet-"))
        parts = partition.dirichlet(labels[chosen], parties, concentration, least, generator)
    return [chosen[part] for part in parts]
