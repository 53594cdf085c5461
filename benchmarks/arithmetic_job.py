"""The arithmetic of a party's training and nothing else: no SecretFlow, no messages, no metrics.

It runs the steps of :mod:`benchmarks.training_job` in a plain process, for :mod:`benchmarks.rounds` to say
what a round costs on top::

    python benchmarks/arithmetic_job.py '{"images": "images.npz", "rounds": 200, "epochs": 3}' report.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
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
    """

    images: str
    rounds: int
    epochs: int
    batch_size: int = 32
    learning_rate: float = 1e-2


def run(job: ArithmeticJob) -> dict[str, Any]:
    """Trains.

    Returns:
        ``epochs``: seconds of each epoch; ``history``: empty.
    """
    # As many as Ray gives an actor.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    x, y = map(torch.from_numpy, own_rows(job.images, party=0, rows=job.rounds * job.batch_size))
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
    return {"epochs": epochs, "history": {}}


if __name__ == "__main__":
    report = run(ArithmeticJob(**json.loads(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(report), encoding="utf-8")
