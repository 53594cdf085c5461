"""What a server that only listens learns of a party that leaves a weight, and what the protection costs.

Parties train with masks of their own and prune after every round. Where one prunes a weight, the average
before holds its last update and the one after does not: from the two the server estimates that update. It is
compared with the estimate from the average before alone, which is there whatever the protocol.
``correlation`` tells how well the estimates follow the real updates:

* ``protected``: with the rules as they are by default,
* ``average_alone``: the average before alone,
* ``unprotected``: with ``fixed_contributors=False``, at the weights that go on without one party,
* ``average_alone_unprotected``: at the same weights the average before alone.

``cost`` is a round, and the bytes that a party uploads in it, over those of the last version without these
rules, which is checked out beside this one. All parties work in one process, and its seconds on the processor
count: other programs on the machine do not.

    python -m benchmarks.leaving
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import ROOT, describe, write_json
from benchmarks.internals import Uploads, watched_uploads
from benchmarks.jobs import Jobs, Report, Side, counted, paired
from benchmarks.rounds import SIDES
from experiments.data import load_images

BEFORE = "9f3473d9c31d33d890d75969948d2d0a1598a90b"
PARTIES = 5
ROWS = 200
"""Of each party."""

CASES: dict[str, dict[str, int]] = {
    "full_batch": {"batch_size": ROWS, "epochs": 16},
    "batch_32": {"batch_size": 32, "epochs": 16},
}
"""The least and the most that batches blur: an epoch is one round in both, of one and of seven steps."""


@dataclass(frozen=True)
class Estimates:
    """Of a party's last update at each weight that it has left.

    Attributes:
        real: the update.
        alone: the estimate from the average that holds it.
        best: the estimate from that and the one after, where there is one.
        followed: whether there is one.
    """

    real: np.ndarray
    alone: np.ndarray
    best: np.ndarray
    followed: np.ndarray

    def correlation(self, estimate: np.ndarray, where: np.ndarray | None = None) -> float:
        """How well an estimate follows the updates."""
        chosen = slice(None) if where is None else where
        return float(np.corrcoef(self.real[chosen], estimate[chosen])[0, 1])


def estimate(rounds: Sequence[Uploads]) -> Estimates:
    """What the server makes of the averages.

    The parties' updates of two successive rounds resemble each other. So what the others have done in the
    round after stands for what they did in the one before, and the rest of that is the one's who has left.

    Args:
        rounds: what was uploaded in each average, the first one without training.
    """
    found: list[list[np.ndarray]] = [[], [], [], []]
    for start, before, after in zip(rounds, rounds[1:], rounds[2:], strict=False):
        moved, moved_after = before.average() - start.average(), after.average() - before.average()
        one_left = before.contributors() - after.contributors() == 1
        for party in range(PARTIES):
            left = before.contributes[party] & ~after.contributes[party] & start.travels()
            followed = left & after.travels() & one_left
            own = before.numbers[party] - start.average()
            weight, rest = before.weight(), after.weight()
            best = np.where(followed, (weight * moved - rest * moved_after) / before.shares[party], moved)
            for values, value in zip(found, (own, moved, best, followed), strict=True):
                values.append(value[left])
    return Estimates(*(np.concatenate(values) for values in found))


def rows_by_label(labels: np.ndarray) -> np.ndarray:
    """Rows of each party in turn, half of them of two digits that are its own, the others of all.

    Parties of the same labels have updates so alike that the average is nearly everybody's already.

    Args:
        labels: of all images.
    """
    rng = np.random.default_rng(0)
    found = []
    for party in range(PARTIES):
        own = rng.permutation(np.flatnonzero(labels // 2 == party))[: ROWS // 2]
        rest = rng.permutation(np.flatnonzero(labels // 2 != party))[: ROWS - own.size]
        found.append(rng.permutation(np.concatenate([own, rest])))
    return np.concatenate(found)


def train(images: Any, batch_size: int, epochs: int, **options: Any) -> Estimates:
    """Trains with masks of the parties' own, and estimates.

    Args:
        images: from :func:`load_images`.
        batch_size: rows of a step.
        epochs: of one round each, after which a step of pruning follows.
        **options: of the aggregator.
    """
    from torch import nn, optim

    import secretflow as sf
    from secretflow.data.ndarray import FedNdarray, PartitionWay
    from secretflow.ml.nn import FLModel
    from secretflow.ml.nn.core.torch import TorchModel, optim_wrapper
    from secretflow.security.aggregation import SecurePruneAggregator

    names = [f"party{k}" for k in range(PARTIES)]
    sf.init([*names, "server"], debug_mode=True, logging_level="error")
    try:
        parties = [sf.PYU(name) for name in names]

        def split(array: np.ndarray) -> FedNdarray:
            parts = {
                party: party((lambda a: lambda: a)(array[k * ROWS : (k + 1) * ROWS]))()
                for k, party in enumerate(parties)
            }
            return FedNdarray(parts, PartitionWay.HORIZONTAL)

        chosen = rows_by_label(images.y_train)
        model = FLModel(
            server=sf.PYU("server"),
            device_list=parties,
            model=TorchModel(
                lambda: nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 32), nn.ReLU(), nn.Linear(32, 10)),
                nn.CrossEntropyLoss,
                optim_wrapper(optim.SGD, lr=0.1),
                [],
            ),
            aggregator=SecurePruneAggregator(sf.PYU("server"), parties, **options),
            strategy="fed_avg_w_prune",
            backend="torch",
            random_seed=1,
            mask_scope="local",
            prune_percent=10,
            prune_end_rate=0.2,
        )
        with watched_uploads(PARTIES) as rounds:
            model.fit(
                split(images.x_train[chosen].astype(np.float32)[:, None] / 255),
                split(np.eye(10, dtype=np.float32)[images.y_train[chosen]]),
                epochs=epochs,
                batch_size=batch_size,
                aggregate_freq=-(-ROWS // batch_size),
                random_seed=1,
                verbose=0,
            )
        return estimate(rounds)
    finally:
        sf.shutdown()


def correlations(case: dict[str, int]) -> dict[str, float]:
    """How well the server's estimates follow the updates, see the head of this module."""
    images = load_images()
    protected = train(images, **case)
    bare = train(images, **case, fixed_contributors=False)
    return {
        "protected": protected.correlation(protected.best),
        "average_alone": protected.correlation(protected.alone),
        "unprotected": bare.correlation(bare.best, bare.followed),
        "average_alone_unprotected": bare.correlation(bare.alone, bare.followed),
        "weights_left": int(protected.real.size),
        "weights_that_go_on_without_one": int(bare.followed.sum()),
    }


@contextmanager
def version_before(commit: str) -> Iterator[Path]:
    """The interpreter of an environment with a version of the past, beside this one's packages."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder, "before")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(checkout), commit], check=True)
        try:
            environment = Path(folder, "environment")
            venv.create(environment, with_pip=False, symlinks=True)
            link = Path(folder, "overlay")
            link.mkdir()
            (link / "secretflow").symlink_to(checkout / "secretflow")
            packages = Path(environment, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}")
            # A line of a .pth is a folder; the .pth files in that folder, this checkout's own, are not read.
            (packages / "site-packages" / "before.pth").write_text(
                f"{link}\n{sysconfig.get_paths()['purelib']}\n", encoding="utf-8"
            )
            yield environment / "bin" / "python"
        finally:
            subprocess.run([*git, "remove", "--force", str(checkout)], check=True)


def costs(repeats: int, rounds: int) -> dict[str, Any]:
    """A round and its bytes over those before, for three parties with masks of their own.

    Args:
        repeats: runs of each side.
        rounds: of an epoch.
    """
    images = load_images()
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other spin, which would count
    settings = {
        **SIDES["fork"],
        "parties": 3,
        "options": {"mask_scope": "local", "prune_percent": 30},
        "one_process": True,
        "processor_time": True,
    }
    with tempfile.TemporaryDirectory() as folder, version_before(BEFORE) as before:
        path = Path(folder, "images.npz")
        np.savez(path, x=images.x_train[:6000], y=images.y_train[:6000])
        sides = {
            "now": Side(Path(sys.executable), settings=settings),
            "before": Side(before, settings=settings),
        }
        reports = Jobs(path, sides).alternate(repeats, rounds=rounds, epochs=9)
    seconds = {
        name: [epoch / rounds for report in done for epoch in counted(report)]
        for name, done in reports.items()
    }
    return {
        "round": statistics.median(seconds["now"]) / statistics.median(seconds["before"]),
        "bytes": paired(reports, "now", "before", _bytes),
        "round_seconds": seconds,
        "before": BEFORE,
    }


def _bytes(report: Report) -> float:
    return float(sum(report["history"]["payload_bytes"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "leaving.json")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each version (default 5)")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of an epoch of these (default 40)")
    parser.add_argument("--cost-only", action="store_true", help="keep the correlations that the file has")
    options = parser.parse_args(arguments)
    about = describe()
    if options.cost_only:
        cases = json.loads(options.out.read_text(encoding="utf-8"))["cases"]
    else:
        cases = {name: correlations(case) for name, case in CASES.items()}
    worst = max(cases.values(), key=lambda found: found["protected"] - found["average_alone"])
    result = {
        "correlation": {name: worst[name] for name in ("protected", "average_alone")},
        "cases": cases,
        "cost": costs(options.repeats, options.rounds),
        **about,
    }
    write_json(options.out, result)
    for name, found in cases.items():
        print(name, {key: round(value, 3) for key, value in found.items()})
    print({name: round(result["cost"][name], 3) for name in ("round", "bytes")})


if __name__ == "__main__":
    main()
