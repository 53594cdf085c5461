"""The numbers that all sides average, and what each reports.

It runs in all environments, and needs numpy alone.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = ((32, 1, 5, 5), (32,), (64, 32, 5, 5), (64,), (512, 3136), (512,), (10, 512), (10,))
"""Of the CNN of McMahan et al. 2017: 1,663,370 numbers."""


def numbers(party: int) -> list[np.ndarray]:
    """The numbers of one party, float32 in the shapes of the CNN, of the size of its weights."""
    rng = np.random.default_rng(party)
    return [rng.normal(scale=0.05, size=shape).astype(np.float32) for shape in SHAPES]


def largest_error(average: Sequence[Any], parties: Sequence[Sequence[np.ndarray]]) -> float:
    """The largest distance of an average from the plain mean of the parties' numbers."""
    means = [np.mean(own, axis=0, dtype=np.float64) for own in zip(*parties, strict=True)]
    return max(
        float(np.max(np.abs(np.asarray(found, np.float64).reshape(mean.shape) - mean)))
        for found, mean in zip(average, means, strict=True)
    )


@dataclass
class Score:
    """What one side's averages cost.

    Attributes:
        client_seconds: work of the party that had most, by round.
        server_seconds: by round.
        up: bytes of a party's messages to the server, by round.
        down: bytes of its answers, by round.
        largest_error: against the plain mean.
        one_lost: what came of a round in which one party was lost before it sent its numbers.
        packages: versions.
    """

    client_seconds: list[float] = field(default_factory=list)
    server_seconds: list[float] = field(default_factory=list)
    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)
    largest_error: float = 0.0
    one_lost: str = ""
    packages: dict[str, str] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Medians over the rounds, of which the first is not counted."""
        measured = asdict(self)
        medians = {
            name: statistics.median(measured.pop(name)[1:])
            for name in ("client_seconds", "server_seconds", "up", "down")
        }
        return {**medians, **measured}


class Clock:
    """Adds up the work of each party and of the server in one round."""

    def __init__(self) -> None:
        self._taken: dict[Any, float] = {}

    @contextmanager
    def of(self, who: Any) -> Iterator[None]:
        """Counts what is done inside for ``who``."""
        began = time.perf_counter()
        yield
        self._taken[who] = self._taken.get(who, 0.0) + time.perf_counter() - began

    def end(self, score: Score) -> None:
        """Ends a round: adds it to the score.

        Work of ``"all"`` is that of the parties and of the server together; the server's is what is left.
        """
        both = self._taken.pop("all", None)
        server = self._taken.pop("server", 0.0)
        score.server_seconds.append(server if both is None else both - sum(self._taken.values()))
        score.client_seconds.append(max(self._taken.values()))
        self._taken.clear()


def run_job(measure: Callable[[int, int], Score], packages: Sequence[str]) -> None:
    """Runs the job named on the command line: JSON with ``parties`` and ``rounds``, and the report's path."""
    job = json.loads(sys.argv[1])
    score = measure(job["parties"], job["rounds"])
    score.packages = {package: version(package) for package in packages}
    Path(sys.argv[2]).write_text(json.dumps(score.row()), encoding="utf-8")
