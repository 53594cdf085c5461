"""Images that were read off averages of updates, put together by party without known counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from experiments.audit.strong_fedavg import (
    HELD,
    LEVELS,
    PARTIES,
    ROUNDS,
    TRAININGS,
    pictures_of,
    trainings,
)
from experiments.audit.strong_scores import Material
from secretflow.ml.nn.fl.attacks import group_rows
from secretflow.ml.nn.fl.audit.intervals import wilson_interval

Row = dict[str, Any]
_UNEQUAL = (20, 60, 100, 140, 180)


def grouped_updates(material: Material, images: int, equal: bool = True) -> Iterator[Row]:
    """Which of the images that are read are of one party; for the trainings see :mod:`.strong_fedavg`.

    Args:
        material: images, of which the parties hold the first ones.
        images: does not count; all 500 are attacked.
        equal: whether all parties hold 100 images; else 20, 60, 100, 140 and 180.

    Yields:
        A row about pairs of images that were read: "images" are the pairs that were put together, and
        "identified" how many of them are of one party.
    """
    held = [HELD] * PARTIES if equal else list(_UNEQUAL)
    x, y = (part[: sum(held)] for part in (material.x.flatten(1), material.y))
    started = time.perf_counter()
    read = pictures_of(trainings(x, y, held), x.shape[1])
    groups = group_rows(read / LEVELS, trainings(x, y, held))  # trained again: to keep all would take 2.5 GB
    parties = torch.repeat_interleave(torch.arange(len(held)), torch.tensor(held))
    own = parties[torch.cdist(read, (x * LEVELS).round()).argmin(dim=1)]
    pairs = torch.ones(len(read), len(read), dtype=torch.bool).triu(1)
    together, same = (groups[:, None] == groups) & pairs, (own[:, None] == own) & pairs
    right, said = int((together & same).sum()), int(together.sum())
    yield {
        "net": "784-1000-10 ReLU",
        "view": f"averages of updates, {TRAININGS} trainings of {ROUNDS} rounds, pairs of images",
        "knowledge": "nothing pruned",
        "density": 1.0,
        "bits": None,
        "parties": len(held),
        "attack": "images grouped by party",
        "images": said,
        "successes": None,
        "identified": right,
        "candidates": None,
        "interval_identified": [round(end, 3) for end in wilson_interval(right, said)] if said else None,
        "median_rank": None,
        "read": len(read),
        "groups": int(groups.max()) + 1 if len(groups) else 0,
        "largest_group": int(groups.bincount().max()) if len(groups) else 0,
        "pairs_of_a_party": int(same.sum()),
        "pairs": int(pairs.sum()),
        "seconds": round(time.perf_counter() - started, 1),
    }
