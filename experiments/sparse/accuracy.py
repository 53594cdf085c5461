"""How often the models of a stack are right."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from experiments.sparse.stack import Stack

_AT_ONCE = 6_000_000
"""Numbers of the features that are evaluated in one pass; bounds the memory."""


@torch.no_grad()
def accuracies(stack: Stack, x: Tensor, y: Tensor, runs: int, parties: int) -> list[float]:
    """Accuracy of each run in percent, of its parties' models on a part of the rows each.

    Args:
        stack: the models of all runs.
        x: features of some rows.
        y: their classes.
        runs: how many.
        parties: of each.
    """
    rows = len(y)
    size = math.ceil(rows / parties)
    # Dealt out by turns; where that does not come out even, the last parties have fewer.
    numbers = torch.arange(size * parties, device=y.device).view(size, parties).T
    at_once = max(1, _AT_ONCE // (runs * parties * x[0].numel()))
    right = torch.zeros(runs, device=numbers.device)
    for first in range(0, size, at_once):
        some = numbers[:, first : first + at_once]
        looked_at = some.clamp_max(rows - 1)
        found = stack.forward(x[looked_at].repeat(runs, *[1] * x.dim())).argmax(2).view(runs, parties, -1)
        right += ((found == y[looked_at]) & (some < rows)).sum((1, 2))
    return [100 * float(value) / rows for value in right.tolist()]
