"""A fit of three parties whose processes can meet a fault in the middle of a round."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn, optim
from torchmetrics import Accuracy

from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.device import PYU
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator
from tests.security.aggregation.dropouts.proxy import Link, Proxy

FEATURES, CLASSES, ROWS, BATCH, EPOCHS = 8, 3, 60, 6, 4
ROUNDS = ROWS // BATCH
NAMES = ["alice", "bob", "carol"]


class Net(nn.Module):
    """Says in a file which process it is in, and does to it what another file says.

    Args:
        folder: of these files; in it ``<signal>-<party>`` has the process of that party sent the signal, and
            ``clock-<party>`` its clock put forward.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, 12)
        self.out = nn.Linear(12, CLASSES)
        self._folder = folder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in ("SIGKILL", "SIGSTOP", "clock"):
            path = Path(self._folder, f"{name}-{int(x[0, -1])}")
            if self.training and path.exists():
                path.unlink()
                Path(self._folder, "pid").write_text(str(os.getpid()))
                if name == "clock":
                    put_clock_forward()
                else:
                    os.kill(os.getpid(), getattr(signal, name))
        return self.out(torch.relu(self.hidden(x)))


def put_clock_forward() -> None:
    """Has all of this process that asks for the time of day be an hour ahead."""
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + 3600
    time.time_ns = lambda: nanoseconds() + 3600 * 10**9


class BehindLink:
    """A party's worker whose stream to the server goes over a link.

    Args:
        worker: of the party.
        link: how it is.

    Attributes:
        proxy: the link, once the fit has begun.
    """

    def __init__(self, worker: Any, link: Link) -> None:
        self._worker = worker
        self._link = link
        self.proxy: Proxy | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)

    def begin_surviving_fit(self, survival: Any, streams: Any, *rest: Any) -> Any:
        self.proxy = Proxy(streams.address, self._link)
        return self._worker.begin_surviving_fit(survival, replace(streams, address=self.proxy.address), *rest)


class At(Callback):
    """Does something after a round.

    Args:
        rounds: after how many of the fit.
        what: is called then.
    """

    needs_model_each_round = True

    def __init__(self, rounds: int, what: Callable[[], object]) -> None:
        super().__init__()
        self._left = rounds
        self._what = what

    def on_train_batch_end(self, batch: Any = None) -> None:
        self._left -= 1
        if not self._left:
            self._what()


class Clock(Callback):
    """Takes the time of each round's end."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[float] = []

    def on_train_batch_end(self, batch: Any = None) -> None:
        self._ends.append(time.monotonic())

    def longest(self, first: int) -> float:
        """Seconds of the longest round from the ``first``-th on."""
        return float(np.diff(self._ends)[first - 1 :].max())

    def since_last(self) -> float:
        """Seconds since the last round ended."""
        return time.monotonic() - self._ends[-1]


def make_model(
    devices: SimpleNamespace, folder: Path, min_survivors: int | None = 2, **options: Any
) -> FLModel:
    parties = [devices.alice, devices.bob, devices.carol]
    deadline = options.pop("round_deadline", 60.0)
    return FLModel(
        server=devices.davy,
        device_list=parties,
        model=TorchModel(
            partial(Net, str(folder)),
            nn.CrossEntropyLoss,
            optim_wrapper(optim.Adam, lr=1e-2),
            [metric_wrapper(Accuracy, task="multiclass", num_classes=CLASSES)],
        ),
        aggregator=SecurePruneAggregator(
            devices.davy,
            parties,
            min_contributors=2,
            min_survivors=min_survivors,
            round_deadline=deadline,
            server_blind=options.pop("server_blind", False),
            upload_bits=options.pop("upload_bits", None),
        ),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=1,
        **{"prune_end_rate": 0.3, "prune_percent": 30, **options},
    )


def make_data(parties: list[PYU]) -> dict[str, Any]:
    """Rows, the last feature of which says whose they are."""
    x, y = {}, {}
    for number, party in enumerate(parties):
        rows = np.random.default_rng(number).normal(size=(ROWS, FEATURES)).astype(np.float32)
        labels = np.eye(CLASSES, dtype=np.float32)[rows[:, :CLASSES].argmax(axis=1)]
        rows[:, -1] = number
        x[party], y[party] = (party(lambda v=value: v)() for value in (rows, labels))
    held = [FedNdarray(parts, PartitionWay.HORIZONTAL) for parts in (x, y)]
    return {"x": held[0], "y": held[1], "validation_data": (held[0], held[1])}
