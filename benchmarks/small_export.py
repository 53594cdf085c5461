"""The small net beside the net that it was made from: time of a prediction, parameters, outputs.

The nets have random weights. Training's own step removes the units of the smallest norms, all at once. Both
predict the same batches with one thread of torch; the sides alternate and the medians count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from benchmarks.environment import ROOT, describe, write_json
from benchmarks.large_net import ResNet18
from experiments.dgl_utils import FedAvgCNN
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.small_model import export_dense_small
from secretflow.ml.nn.fl.worker.structured import masked_model

NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "fedavg-cnn": (FedAvgCNN, (1, 28, 28)),
    "resnet-18": (ResNet18, (3, 32, 32)),
}


def pruned(build: Callable[[], nn.Module], rate: float) -> tuple[nn.Module, float]:
    """A net of random weights after one step of pruning, and its density.

    Args:
        build: makes the net.
        rate: fraction of the units that is left, in (0, 1].
    """
    torch.manual_seed(0)
    net = build().eval()
    settings = PruneSettings(
        prune_structure="unit", prune_end_rate=rate, prune_schedule="cubic", prune_end_epoch=1
    )
    masked = masked_model(net, [], settings)
    masked.prune_if_due(settings, 1)
    return net, masked.densities()[""]


def measure(nets: Sequence[str], rates: Sequence[float], batch: int, repeats: int) -> list[dict[str, Any]]:
    """Times each net at each rate beside its small one.

    Args:
        nets: names in ``NETS``.
        rates: fractions of the units that are left.
        batch: rows of a batch.
        repeats: how often each side is timed, at least 1, after once that is not.
    """
    rows = []
    for name, rate in tqdm([(name, rate) for name in nets for rate in rates], desc="nets"):
        build, shape = NETS[name]
        net, density = pruned(build, rate)
        small = export_dense_small(net)
        x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))
        seconds: dict[nn.Module, list[float]] = {net: [], small: []}
        with torch.inference_mode():
            difference = float((net(x) - small(x)).abs().max())  # also the first call of each, not timed
            for _ in range(repeats):
                for side, spent in seconds.items():
                    started = time.perf_counter()
                    side(x)
                    spent.append(time.perf_counter() - started)
        whole, less = (statistics.median(spent) for spent in seconds.values())
        rows.append(
            {
                "net": name,
                "units_left": rate,
                "density": round(density, 4),
                "parameters": sum(parameter.numel() for parameter in net.parameters()),
                "parameters_small": sum(parameter.numel() for parameter in small.parameters()),
                "milliseconds": round(1000 * whole, 3),
                "milliseconds_small": round(1000 * less, 3),
                "times_faster": round(whole / less, 2),
                "largest_difference": difference,
            }
        )
    return rows


def main() -> None:
    """Writes ``benchmarks/results/small_export.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), help="which nets")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.5, 0.25], help="fractions of units left")
    parser.add_argument("--batch", type=int, default=32, help="rows of a batch")
    parser.add_argument("--repeats", type=int, default=15, help="how often each side predicts")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "small_export.json")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(chosen.nets, chosen.rates, chosen.batch, chosen.repeats)
    settings = {"batch": chosen.batch, "repeats": chosen.repeats, "threads": 1}
    write_json(chosen.out, {**describe(), **settings, "rows": rows})
    for row in rows:
        print(
            f"{row['net']}, {row['units_left']} of the units: {row['times_faster']} times as fast, "
            f"{row['parameters_small']} of {row['parameters']} parameters, outputs differ by at most "
            f"{row['largest_difference']:.1e}"
        )


if __name__ == "__main__":
    main()
