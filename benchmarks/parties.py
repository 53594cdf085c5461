"""Rounds of two to 256 parties that share two processes: how long they take, and how much memory.

Each number of parties is a process of its own, :mod:`benchmarks.training_job`: MNIST, the CNN of 1.66 million
weights of McMahan et al. 2017, plain SGD, one batch of ten rows a round, one mask for all parties, at density
0.1 from the second epoch on. The first epoch warms up and is not counted. Encoding, pads and sums are those
of parties on machines of their own; messages travel through a socket. ``docs/performance.md`` has the
findings.

A run with some numbers of parties keeps the rows of the others that are in the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import ROOT, describe, write_json
from benchmarks.growth_plot import exponent
from benchmarks.internals import SERVER_ACTOR
from benchmarks.jobs import Jobs, Side, counted
from benchmarks.memory import PeakMemory
from benchmarks.training import TO_A_TENTH
from experiments.data import load_images

RESULTS = ROOT / "benchmarks" / "results" / "parties.json"
PARTIES = (2, 4, 8, 16, 32, 64, 128, 256)
PROCESSES, ROUNDS, EPOCHS, BATCH = 2, 3, 2, 10
TARGETS = {"seconds_per_round": 10.0, "peak_gib": 16.0}
"""At most, of 256 parties."""

_GIB = 2.0**30
_MIB = 2.0**20


def measure(images: Path, parties: int, max_colluders: float | None) -> dict[str, Any]:
    """One number of parties."""
    side = Side(
        Path(sys.executable),
        settings={
            "aggregator": "SecurePruneAggregator",
            "aggregator_options": {"max_colluders": max_colluders},
            "strategy": "fed_avg_w_prune",
            "options": {
                **TO_A_TENTH,
                "prune_freq": 1,
                "mask_scope": "global",
                "worker_processes": PROCESSES,
            },
            "net": "FedAvgCNN",
            "optimizer": "SGD",
            "learning_rate": 0.1,
            "rounds": ROUNDS,
            "epochs": EPOCHS,
            "batch_sizes": [BATCH],
            "cores": PROCESSES,
        },
    )
    with PeakMemory() as memory:
        report = Jobs(images, {"fork": side}).run("fork", parties=parties)
    server = [
        next(size for name, size in sizes.items() if name.startswith(SERVER_ACTOR))
        for sizes in report["memory"]
    ]
    history = report["history"]
    return {
        "parties": parties,
        "seconds_per_round": statistics.mean(counted(report)) / ROUNDS,
        # Of each party, of which a process has half.
        "train_seconds_of_a_party": statistics.mean(history["train_seconds"][1:]) / ROUNDS,
        "aggregate_seconds_of_a_party": statistics.mean(history["aggregate_seconds"][1:]) / ROUNDS,
        "upload_bytes_of_a_party": history["payload_bytes"][-1] / ROUNDS / parties,
        "density": history["density"][-1],
        "peak_gib": memory.peak / _GIB,
        "server_mib": [size / _MIB for size in server],
        "seconds_from_model_to_end": report["ended"] - report["model_began"],
        "environment": describe(),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rows say together."""
    result: dict[str, Any] = {
        "seconds_per_round": {str(row["parties"]): row["seconds_per_round"] for row in rows},
        "peak_gib": max(row["peak_gib"] for row in rows),
        "peak_gib_by_parties": {str(row["parties"]): row["peak_gib"] for row in rows},
        "server_mib": {str(row["parties"]): row["server_mib"][-1] for row in rows},
    }
    columns = ("seconds_per_round", "aggregate_seconds_of_a_party", "peak_gib")
    for name, chosen in (("all", rows), ("from_32", [row for row in rows if row["parties"] >= 32])):
        if len(chosen) > 1:
            result[f"exponents_{name}"] = {column: exponent(chosen, "parties", column) for column in columns}
    if rows[-1]["parties"] == max(PARTIES):
        result["verdicts"] = {
            name: {"measured": rows[-1][name], "target": target, "met": rows[-1][name] <= target}
            for name, target in TARGETS.items()
        }
    return result


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws seconds and memory over parties, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    parties = [row["parties"] for row in rows]
    lines = {
        "round": [row["seconds_per_round"] for row in rows],
        "aggregation, one party": [row["aggregate_seconds_of_a_party"] for row in rows],
        "training, one party": [row["train_seconds_of_a_party"] for row in rows],
    }
    for label, values in lines.items():
        seconds.loglog(parties, values, marker="o", label=label)
    memory.loglog(parties, [row["peak_gib"] for row in rows], marker="o", label="all processes, peak")
    memory.loglog(
        parties,
        [row["server_mib"][-1] / 1024 for row in rows],
        marker="o",
        label="server, after the last round",
    )
    for axes, what in ((seconds, "seconds"), (memory, "GiB")):
        axes.set_xticks(parties, [str(count) for count in parties])
        axes.minorticks_off()
        axes.set(xlabel="parties", ylabel=what)
        axes.grid(True, which="major", alpha=0.3)
        axes.legend()
    figure.suptitle(f"1.66 million weights at density 0.1, {PROCESSES} processes for the parties")
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    """Measures, and writes the result and its plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parties", type=int, nargs="+", default=PARTIES, help="how many, each a run")
    parser.add_argument("--max-colluders", type=float, help="of the aggregator (default: its own)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the result")
    chosen = parser.parse_args(arguments)
    rows: dict[int, dict[str, Any]] = {}
    if chosen.out.exists():
        rows = {row["parties"]: row for row in json.loads(chosen.out.read_text(encoding="utf-8"))["rows"]}
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npz"
        mnist = load_images()
        np.savez(images, x=mnist.x_train, y=mnist.y_train)
        for parties in chosen.parties:
            rows[parties] = measure(images, parties, chosen.max_colluders)
            known = [rows[count] for count in sorted(rows)]
            job = {"processes": PROCESSES, "rounds": ROUNDS, "epochs": EPOCHS, "batch_size": BATCH}
            write_json(chosen.out, {**job, **summary(known), "rows": known})
    draw(known, chosen.out.with_suffix(".png"))
    for row in known:
        print(
            f"{row['parties']} parties: {row['seconds_per_round']:.2f} s a round, "
            f"{row['peak_gib']:.1f} GiB at most, server {row['server_mib'][-1]:.0f} MiB"
        )


if __name__ == "__main__":
    main()
