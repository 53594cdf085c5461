"""The arithmetic of the parties' training and nothing else: no SecretFlow, no messages, no metrics.

It runs the steps of :mod:`benchmarks.training_job` in a plain process for each party, all at the same time as
in a round, for :mod:`benchmarks.rounds` to say what a round costs on top of the slower one::

    python benchmarks/arithmetic_job.py '{"images": "images.npz", "rounds": 200, "epochs": 3}' report.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn

# In place of this file's folder: the packages beside it.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.training_job import load_nets, own_rows  # noqa: E402


@dataclass(frozen=True)
class ArithmeticJob:
    """What to run.

    Attributes:
        images: as for :class:`~benchmarks.training_job.Job`, as are those below.
        rounds: steps of an epoch; a round has one.
        epochs: epochs; the first one warms up.
        batch_size: rows of a step.
        learning_rate: of Adam.
        parties: how many train at the same time, each in a process with rows of its own.
    """

    images: str
    rounds: int
    epochs: int
    batch_size: int = 32
    learning_rate: float = 1e-2
    parties: int = 2


def run(job: ArithmeticJob) -> dict[str, Any]:
    """Trains all parties.

    Returns:
        ``epochs``: seconds of each epoch of the slower party; ``history``: empty.
    """
    with ProcessPoolExecutor(job.parties, get_context("spawn")) as pool:
        seconds = list(pool.map(train, [job] * job.parties, range(job.parties)))
    return {"epochs": [max(epoch) for epoch in zip(*seconds, strict=True)], "history": {}}


def train(job: ArithmeticJob, party: int) -> list[float]:
    """Trains one party; returns the seconds of each epoch."""
    # As many as Ray gives an actor.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    x, y = map(torch.from_numpy, own_rows(job.images, party=party, rows=job.rounds * job.batch_size))
    batches = list(zip(x.split(job.batch_size), y.split(job.batch_size), strict=True))
    net = load_nets().ConvNet()
    weights = [weight.detach() for weight in net.parameters() if weight.dim() >= 2]
    masks = [torch.ones_like(weight) for weight in weights]
    loss, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), lr=job.learning_rate)
    epochs = []
    for _ in range(job.epochs):
        began = time.perf_counter()
        for rows, labels in batches:
            value = loss(net(rows), labels)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            torch._foreach_mul_(weights, masks)
        epochs.append(time.perf_counter() - began)
    return epochs


if __name__ == "__main__":
    report = run(ArithmeticJob(**json.loads(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(report), encoding="utf-8")
