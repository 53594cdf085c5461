"""Federated training of the main job, with and without pruning."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn, optim
from torchmetrics import Accuracy, Precision

from experiments.data import CLASSES, SPLIT, Images, share_out
from experiments.dgl_utils import ConvNet
from experiments.settings import Settings
from secretflow.data.ndarray import FedNdarray
from secretflow.device import PYU, reveal
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.security.aggregation import PlainAggregator, SecurePruneAggregator

Epochs = list[dict[str, float]]


class Parties(NamedTuple):
    """Who takes part: alice and bob hold the data, charlie is the server."""

    alice: PYU
    bob: PYU
    charlie: PYU


class Data(NamedTuple):
    """The parties' shares of training and test data."""

    x_train: FedNdarray
    y_train: FedNdarray
    x_test: FedNdarray
    y_test: FedNdarray


def share_out_all(images: Images, parties: Parties) -> Data:
    """Gives alice 0.4 and bob 0.6 of the training rows and of the test rows."""
    parts = {parties.alice: SPLIT["alice"], parties.bob: SPLIT["bob"]}
    return Data(
        *share_out(images.x_train, images.y_train, parts), *share_out(images.x_test, images.y_test, parts)
    )


def torch_model(net: Callable[[], nn.Module], optimizer: type[optim.Optimizer], lr: float) -> TorchModel:
    """How every party builds its net.

    Args:
        net: builds the net.
        optimizer: its optimiser.
        lr: learning rate, above 0.
    """
    return TorchModel(
        model_fn=net,
        loss_fn=nn.CrossEntropyLoss,
        optim_fn=optim_wrapper(optimizer, lr=lr),
        metrics=[
            metric_wrapper(Accuracy, task="multiclass", num_classes=CLASSES, average="micro"),
            metric_wrapper(Precision, task="multiclass", num_classes=CLASSES, average="micro"),
        ],
    )


class EpochRecorder(Callback):
    """Keeps what is known after each epoch, so that it is there when training is broken off.

    Args:
        aggregator: the run's aggregator.
        save: called after each epoch with all epochs so far.
    """

    def __init__(self, aggregator: Any, save: Callable[[Epochs], None]) -> None:
        super().__init__()
        self.epochs: Epochs = []
        self._aggregator = aggregator
        self._save = save
        self._rounds = 0
        self._uploaded = 0
        self._started = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts to count."""
        self._uploaded = self._total_uploaded()

    def on_epoch_begin(self, epoch: int | None = None, logs: Any = None) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch: int) -> None:
        """Counts a round."""
        self._rounds += 1

    def on_epoch_end(self, epoch: int | None = None, logs: Any = None) -> None:
        """Writes down one epoch; its validation is over by now."""
        metrics = {name: float(value) for name, value in self._calc_aggregated_metrics().items()}
        before, self._uploaded = self._uploaded, self._total_uploaded()
        self.epochs.append(
            {
                "epoch": len(self.epochs) + 1,
                "rounds": self._rounds,
                **metrics,
                "density": self._density(),
                "bytes_uploaded": self._uploaded - before,
                "seconds": round(time.perf_counter() - self._started, 3),
            }
        )
        self._save(self.epochs)

    def _prunes(self) -> bool:
        return isinstance(self._aggregator, SecurePruneAggregator)

    def _total_uploaded(self) -> int:
        if self._prunes():
            return sum(reveal(self._aggregator.payload_bytes()).values())
        return self._rounds * len(SPLIT) * dense_bytes(ConvNet())

    def _density(self) -> float:
        if not self._prunes():
            return 1.0
        rates = reveal([worker.densities() for worker in self._workers.values()])
        return sum(rate[""] for rate in rates) / len(rates)


def dense_bytes(net: nn.Module) -> int:
    """Bytes of all arrays that a party uploads in a round without pruning."""
    return sum(value.numel() * value.element_size() for value in net.state_dict().values())


def secure_aggregator(parties: Parties) -> SecurePruneAggregator:
    """The aggregator of this fork's rounds: charlie adds up what alice and bob seal."""
    return SecurePruneAggregator(parties.charlie, [parties.alice, parties.bob])


def train_upstream(
    settings: Settings, parties: Parties, data: Data, save: Callable[[Epochs], None]
) -> Epochs:
    """Trains without pruning: upstream's strategy, averaged in the clear at alice.

    Args:
        settings: of this run.
        parties: who takes part.
        data: their shares.
        save: called after each epoch with all epochs so far.

    Returns:
        What is known of each epoch.
    """
    return _train(settings, parties, data, save, PlainAggregator(parties.alice), strategy="fed_avg_w")


def train_pruned(
    settings: Settings,
    parties: Parties,
    data: Data,
    save: Callable[[Epochs], None],
    aggregator: SecurePruneAggregator,
) -> Epochs:
    """Trains with pruning and secure aggregation; with ``prune_end_rate=1`` nothing is pruned.

    Args:
        settings: of this run.
        parties: who takes part.
        data: their shares.
        save: called after each epoch with all epochs so far.
        aggregator: from :func:`secure_aggregator`.

    Returns:
        What is known of each epoch.
    """
    return _train(
        settings,
        parties,
        data,
        save,
        aggregator,
        strategy="fed_avg_w_prune",
        wp_strategy=True,
        prune_end_rate=settings.prune_end_rate,
        prune_percent=settings.prune_percent,
    )


def _train(
    settings: Settings,
    parties: Parties,
    data: Data,
    save: Callable[[Epochs], None],
    aggregator: Any,
    **strategy: Any,
) -> Epochs:
    model = FLModel(
        server=parties.charlie,
        device_list=[parties.alice, parties.bob],
        model=torch_model(ConvNet, optim.Adam, lr=1e-2),
        aggregator=aggregator,
        backend="torch",
        random_seed=settings.seed,
        **strategy,
    )
    recorder = EpochRecorder(aggregator, save)
    model.fit(
        data.x_train,
        data.y_train,
        validation_data=(data.x_test, data.y_test),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        aggregate_freq=1,
        verbose=int(settings.verbose),
        callbacks=[recorder],
    )
    return recorder.epochs
