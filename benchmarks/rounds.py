"""How long a round and a start take: beside upstream, beside the bare arithmetic, and in the main job."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT
from benchmarks.jobs import Jobs, Report, Side, counted, paired, summary

SIDES: dict[str, dict[str, Any]] = {
    "upstream_secure": {"aggregator": "SecureAggregator", "strategy": "fed_avg_w"},
    "upstream_plain": {"aggregator": "PlainAggregator", "strategy": "fed_avg_w"},
    "fork": {
        "aggregator": "SecurePruneAggregator",
        "strategy": "fed_avg_w_prune",
        "options": {"prune_preset": "lottery"},
    },
}
ROWS_OF_MAIN_JOB = [32, 48]
"""Its parties' batches; the other sides' are of 32 rows."""
LARGE: dict[str, Any] = {
    "net": "ResNet18",
    "image_shape": (3, 32, 32),
    "learning_rate": 1e-3,
    "parties": 3,
    "rounds": 1,
    "epochs": 1,
    "data_first": True,
}
"""Its only round ends with a step of pruning, which is part of what the fork is timed for."""


def all_sides(fork: Path, upstream: Path, plain: bool = True) -> dict[str, Side]:
    """The sides that are compared, by name.

    Args:
        fork: interpreter of this environment.
        upstream: interpreter of upstream's.
        plain: upstream's plain aggregator, too.
    """
    training = {
        name: Side(fork if name == "fork" else upstream, settings=settings)
        for name, settings in SIDES.items()
        if plain or name != "upstream_plain"
    }
    folder = ROOT / "benchmarks"
    return {
        **training,
        "main_job": Side(fork, folder / "main_job.py"),
        "same_rows": Side(fork, settings={**SIDES["fork"], "batch_sizes": ROWS_OF_MAIN_JOB}),
        "arithmetic": Side(fork, folder / "arithmetic_job.py"),
    }


def compare_rounds(jobs: Jobs, repeats: int, rounds: int, epochs: int) -> Report:
    """Rounds of all sides of a job, one step a round, each over that of the fork.

    The mean of a run counts, and of the runs the median. The median epoch of all runs leaves out those in
    which upstream's server stood still, because Ray had to start processes for its stateless calls.
    """
    reports = jobs.alternate(repeats, rounds=rounds, epochs=epochs)
    return {
        "sides": {name: summary(done, rounds) for name, done in reports.items()},
        **round_figures(reports, rounds),
    }


def round_figures(reports: Mapping[str, list[Report]], rounds: int) -> Report:
    """What the runs of a comparison say.

    Args:
        reports: by side, the fork and at least one of upstream's among them; with the main job's also those
            of the benchmark's round of as many rows.
        rounds: rounds of an epoch.

    Returns:
        ``round`` and, if it was run, ``main_job``: beside the benchmark's round of as many rows, and beside
        the one of 32 rows. Its epochs evaluate test rows, which the benchmark's do not, so the former ratio
        is told without that and with it.
    """
    medians = {
        name: statistics.median(seconds for report in done for seconds in counted(report))
        for name, done in reports.items()
    }
    figures: dict[str, Any] = {}
    for name in reports:
        if name.startswith("upstream"):
            figures[f"ratio_vs_{name}"] = paired(reports, name, "fork", _mean)
            figures[f"ratio_of_medians_vs_{name}"] = medians[name] / medians["fork"]
    if "arithmetic" in reports:
        figures["over_arithmetic"] = paired(reports, "fork", "arithmetic", _mean)
    if "main_job" not in reports:
        return {"round": figures}

    def with_evaluation(report: Report) -> float:
        return _mean(report) + statistics.mean(report.get("evaluation", [0.0, 0.0])[1:])

    def milliseconds(name: str) -> float:
        return 1e3 * statistics.median(_mean(report) for report in reports[name]) / rounds

    main_job = {
        "over_benchmark_round": paired(reports, "main_job", "same_rows", _mean),
        "over_benchmark_round_of_32_rows": paired(reports, "main_job", "fork", _mean),
        "over_benchmark_round_with_evaluation": paired(reports, "main_job", "same_rows", with_evaluation),
        "round_milliseconds": milliseconds("main_job"),
        "benchmark_round_milliseconds": milliseconds("same_rows"),
    }
    return {"round": figures, "main_job": main_job}


def compare_starts(jobs: Jobs, repeats: int, names: Sequence[str]) -> Report:
    """From the start of a job's process until its only epoch, of two rounds, is over; fork over upstream.

    Args:
        jobs: what runs them.
        repeats: runs of each.
        names: of the sides.
    """
    reports = jobs.alternate(repeats, names, rounds=2, epochs=1)
    seconds = {name: [_start(report) for report in done] for name, done in reports.items()}
    return {"ratio": paired(reports, "upstream_secure", "fork", _start), "seconds": seconds}


def compare_large_starts(jobs: Jobs, repeats: int) -> Report:
    """From ``FLModel(...)`` to the end of the first round: eleven million weights, three parties."""
    reports = jobs.alternate(repeats, ["upstream_secure", "fork"], **LARGE)
    seconds = {name: [_large_start(report) for report in done] for name, done in reports.items()}
    over = paired(reports, "fork", "upstream_secure", _large_start)
    return {"large_model_over_upstream": over, "large_model_seconds": seconds}


def _mean(report: Report) -> float:
    return statistics.mean(counted(report))


def _start(report: Report) -> float:
    return report["ended"] - report["began"]


def _large_start(report: Report) -> float:
    return report["ended"] - report["model_began"]
