"""A program to kill: trains five epochs, saves after each, and prints the curves."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torchmetrics import Accuracy

import secretflow as sf
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.ml.nn.fl.callbacks import Checkpoint
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.utils.simulation.data.ndarray import create_ndarray

EPOCHS, ROWS, FEATURES, CLASSES = 5, 90, 8, 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, 16)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.dropout(torch.relu(self.hidden(x))))


def die_in_save(number: int) -> None:
    """Has the so-manieth save, counted over all parties, end the process with a part of it written."""
    save, saves = torch.save, itertools.count(1)

    def dying(content: Any, file: Any) -> None:
        save(content, file)
        if next(saves) == number:
            file.truncate(100)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = dying


class Kill(Callback):
    """Ends the process as a power cut would."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def on_epoch_end(self, epoch: int | None = None, logs: Any = None) -> None:
        if epoch is not None and epoch + 1 == self._after:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--kill-after", type=int, default=0)
    parser.add_argument("--kill-in-save", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    die_in_save(arguments.kill_in_save)
    sf.init(["alice", "bob", "carol"], debug_mode=True, logging_level="error")
    alice, bob, carol = (sf.PYU(name) for name in ("alice", "bob", "carol"))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = np.eye(CLASSES, dtype=np.float32)[x[:, :CLASSES].argmax(axis=1)]
    parts = {alice: (0, 50), bob: (50, ROWS)}
    data = [create_ndarray(array, parts=parts, axis=0) for array in (x, y)]
    model = FLModel(
        server=carol,
        device_list=[alice, bob],
        model=TorchModel(
            Net,
            nn.CrossEntropyLoss,
            optim_wrapper(optim.Adam, lr=0.02),
            [metric_wrapper(Accuracy, task="multiclass", num_classes=CLASSES)],
        ),
        aggregator=SecurePruneAggregator(carol, [alice, bob]),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=1,
        prune_schedule="cubic",
        prune_freq=2,
        prune_start_epoch=1,
        prune_end_epoch=4,
        prune_end_rate=0.3,
        withhold_percent=10,
    )
    path = f"{arguments.folder}/model"
    if arguments.resume:
        model.load_model(path, is_test=True)
    history = model.fit(
        *data,
        validation_data=data,
        epochs=EPOCHS - model.epochs_trained(),
        batch_size=8,
        shuffle=True,
        random_seed=4,
        verbose=0,
        callbacks=[Checkpoint(path, is_test=True), Kill(arguments.kill_after)],
    )
    print(json.dumps({name: [float(v) for v in values] for name, values in history.global_history.items()}))


if __name__ == "__main__":
    main()
