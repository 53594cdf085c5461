"""One secure average of the same numbers here, in Flower, in NVFlare and in Fed-BioMed.

Each side's own classes do the work of clients and server, in one process; messages are made as they would
travel, and not sent. A figure of seconds is what the busiest client, and the server, work for one average:
waits and networks are not in it. Other systems are in environments of their own, which are made if they are
not there. Which numbers travel is each system's own: only this project leaves pruned ones out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT, describe, write_json
from benchmarks.flower_environment import flower_python
from benchmarks.jobs import run_script
from benchmarks.peers import fork
from benchmarks.separate_environment import pinned, separate_python

RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
NOT_MEASURED = {
    "APPFL 1.12.0": "installs; has differential privacy and compression, and no secure aggregation",
}


@dataclass(frozen=True)
class Peer:
    """Another system.

    Attributes:
        job: file name of what measures it.
        python: gives the interpreter of its environment, which is made if it is not there.
        keys: who must have agreed on what before.
    """

    job: str
    python: Callable[[], Path]
    keys: str


PEERS = {
    "Flower SecAgg+": Peer(
        "flower_job.py",
        flower_python,
        "keys of pairs and shares of secrets are made anew in each average, which the seconds include",
    ),
    "NVFlare HE (CKKS)": Peer(
        "nvflare_job.py",
        lambda: separate_python(ROOT / ".venv-nvflare", ["nvflare[HE]==2.9.0", *pinned("torch", "numpy")]),
        "all clients have the same secret key, which opens any client's upload",
    ),
    "Fed-BioMed LOM": Peer(
        "fedbiomed_job.py",
        lambda: separate_python(ROOT / ".venv-fedbiomed", ["fedbiomed==6.4.1"]),
        "keys of pairs are agreed on once; all must be there",
    ),
}
OWN = {
    "dense": (1.0, None),
    "density 0.1": (0.1, None),
    "density 0.1, 8 bits": (0.1, 8),
    "density 0.05, 8 bits": (0.05, 8),
}
"""Density and bits of an update."""


def measure_peer(peer: Peer, parties: int, rounds: int) -> dict[str, Any]:
    """The row of another system.

    Raises:
        RuntimeError: its job failed.
    """
    script = Path(__file__).with_name(peer.job)
    job = {"parties": parties, "rounds": rounds}
    return {**run_script(script.stem, peer.python(), script, job), "keys": peer.keys}


def table(rows: dict[str, Any]) -> str:
    """The rows as a table of Markdown."""
    lines = [
        "| | client, s | server, s | MB up, down | error | one party lost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        survived = row["one_lost"].startswith("the others' average")
        lines.append(
            f"| {name} | {row['client_seconds']:.3f} | {row['server_seconds']:.4f} "
            f"| {row['up'] / 1e6:.2f}, {row['down'] / 1e6:.2f} | {row['largest_error']:.0e} "
            f"| {'survived' if survived else row['one_lost'].split(':')[0]} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, writes the result and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parties", type=int, default=4, help="how many average (default 4, at least 4)")
    parser.add_argument("--rounds", type=int, default=4, help="averages, the first of which is not counted")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the result")
    chosen = parser.parse_args(arguments)
    for name, least in (("parties", 4), ("rounds", 2)):
        if getattr(chosen, name) < least:
            parser.error(f"argument --{name}: must be at least {least}, got {getattr(chosen, name)}")
    rows = {}
    for name, peer in PEERS.items():
        print(name, flush=True)
        rows[name] = measure_peer(peer, chosen.parties, chosen.rounds)
    for name, (density, bits) in OWN.items():
        rows[f"this project, {name}"] = fork.measure(chosen.parties, chosen.rounds, density, bits).row()
    how = {"parties": chosen.parties, "rounds": chosen.rounds, "environment": describe()}
    write_json(chosen.out, {**how, "rows": rows, "not_measured": NOT_MEASURED})
    print(table(rows))


if __name__ == "__main__":
    main()
