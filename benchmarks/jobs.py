"""Runs jobs of several sides in turn, each in a process of its own, and sums up what they report."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.environment import ROOT

Report = dict[str, Any]
TRAINING_JOB = ROOT / "benchmarks" / "training_job.py"


@dataclass(frozen=True)
class Side:
    """One of those that are compared.

    Attributes:
        python: interpreter of its environment.
        script: what runs one of its jobs; takes the job as JSON and the path of the report.
        settings: what all its jobs have in common.
    """

    python: Path
    script: Path = TRAINING_JOB
    settings: dict[str, Any] = field(default_factory=dict)

    def with_settings(self, **settings: Any) -> Side:
        """This side with further settings."""
        return replace(self, settings={**self.settings, **settings})


class Jobs:
    """Runs jobs.

    Args:
        images: path of the ``.npz`` that all jobs train on, see :class:`~benchmarks.training_job.Job`.
        sides: whose jobs, by name.
        compiled: whether processes find what they import compiled.
    """

    def __init__(self, images: Path, sides: Mapping[str, Side], compiled: bool = True) -> None:
        self._images = str(images)
        self._sides = sides
        self._progress = tqdm(unit="job")
        nowhere = {"PYTHONPYCACHEPREFIX": str(images.with_name("nothing")), "PYTHONDONTWRITEBYTECODE": "1"}
        self._environment = {**os.environ, **({} if compiled else nowhere)}

    def run(self, name: str, **job: Any) -> Report:
        """Runs a job of one side; adds to its report ``began``, the point of time when its process started.

        Raises:
            RuntimeError: it failed; has the end of what it said.
        """
        side = self._sides[name]
        job = {**side.settings, "images": self._images, **job}
        self._progress.set_description(f"{name} {job.get('net', 'ConvNet')} {job.get('parties', 2)} parties")
        began = time.time()
        report = run_script(name, side.python, side.script, job, self._environment)
        self._progress.update()
        return {**report, "began": began}

    def alternate(
        self, repeats: int, names: Sequence[str] | None = None, **job: Any
    ) -> dict[str, list[Report]]:
        """Runs the same job of sides in turn, several times; the reports by side.

        Args:
            repeats: runs of each side.
            names: of the sides; None is all.
            **job: of each.
        """
        reports: dict[str, list[Report]] = {name: [] for name in (self._sides if names is None else names)}
        for _ in range(repeats):
            for name, done in reports.items():
                done.append(self.run(name, **job))
        return reports


def run_script(
    name: str,
    python: Path,
    script: Path,
    job: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> Report:
    """Runs a job in a process of its own, and returns its report.

    Args:
        name: whose job, for the message of an error.
        python: interpreter of its environment.
        script: what runs it; takes the job as JSON and the path of the report.
        job: what to do.
        environment: variables of the process; None for those of this one.

    Raises:
        RuntimeError: it failed; has the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        done = subprocess.run(
            # Not from the checkout, where another environment would find the overlay.
            [str(python), str(script), json.dumps(job), str(out)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{name} {job} failed:\n{done.stderr[-3000:]}")
        report: Report = json.loads(out.read_text(encoding="utf-8"))
    return report


def counted(report: Report) -> list[float]:
    """Seconds of the epochs after the first, which warms up."""
    return report["epochs"][1:]


def paired(
    reports: Mapping[str, Sequence[Report]], over: str, under: str, value: Callable[[Report], float]
) -> float:
    """How many times one side's figure is another's: the median over runs that followed each other.

    Args:
        reports: from :meth:`Jobs.alternate`.
        over: the one side.
        under: the other.
        value: the figure of one run, above 0.
    """
    pairs = zip(reports[over], reports[under], strict=True)
    return statistics.median(value(one) / value(other) for one, other in pairs)


def summary(reports: Sequence[Report], rounds: int) -> dict[str, Any]:
    """Round and last metrics of one side.

    The mean is what a user waits. The median epoch leaves out those in which a side stood still.

    Args:
        reports: of its runs, at least one.
        rounds: rounds of an epoch.
    """
    seconds = [epoch / rounds for report in reports for epoch in counted(report)]
    return {
        "round_seconds": seconds,
        "round_mean": statistics.mean(seconds),
        "round_median": statistics.median(seconds),
        "metrics": {name: v[-1] for name, v in reports[0]["history"].items() if "multiclass" in name},
    }
