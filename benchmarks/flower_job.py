"""One training run of Flower's simulation: what :mod:`benchmarks.flower` starts, times and compares.

It runs in Flower's environment::

    python benchmarks/flower_job.py '{"images": "images.npz", "secure": true, ...}' report.json
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

# In place of this file's folder, so that Flower's actors, which it hands this on to, find the client.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.flower_rounds import FlowerJob  # noqa: E402

PACKAGES = ("flwr", "ray", "torch", "torchmetrics", "numpy")


def main() -> None:
    """Runs the job named on the command line and writes its report."""
    job = FlowerJob(**json.loads(sys.argv[1]))
    report = run(job)
    Path(sys.argv[2]).write_text(json.dumps(report), encoding="utf-8")


def run(job: FlowerJob) -> dict[str, Any]:
    """Trains.

    Returns:
        ``epochs``: seconds of each epoch; ``history``: each metric of all parties together, by epoch;
        ``secagg``: settings of SecAgg+, None if it was not used; ``versions``: of packages.
    """
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0")
    from flwr.common import Context
    from flwr.server import LegacyContext, ServerApp, ServerConfig
    from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
    from flwr.simulation import run_simulation

    from benchmarks.flower_client import client_app

    logging.getLogger("flwr").setLevel(logging.WARNING)
    if job.poll:
        _look_every(job.poll)
    strategy = _strategy(job)
    server = ServerApp()

    @server.main()
    def serve(grid: Any, context: Context) -> None:
        if job.poll:
            grid.pull_interval = job.poll
        rounds = ServerConfig(num_rounds=job.rounds * job.epochs)
        averaging = SecAggPlusWorkflow(**job.secagg_settings()) if job.secure else None
        DefaultWorkflow(fit_workflow=averaging)(
            grid, LegacyContext(context=context, config=rounds, strategy=strategy)
        )

    run_simulation(
        server_app=server,
        client_app=client_app(job),
        num_supernodes=job.parties,
        # An actor for each party, as on the other sides, on however many cores.
        backend_config={
            "init_args": {"num_cpus": job.parties},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    return {
        "epochs": [job.rounds * mean for mean in job.by_epoch(strategy.seconds)],
        "history": {name: job.by_epoch(values) for name, values in strategy.metrics.items()},
        "secagg": job.secagg_settings() if job.secure else None,
        "versions": {package: version(package) for package in PACKAGES},
    }


def _look_every(seconds: float) -> None:
    """Makes Flower's simulation look for messages this often, for which it has no setting."""
    from flwr.server.superlink.fleet.vce import vce_api

    class Impatient:
        """An event of which nothing waits longer.

        Args:
            event: that it stands for.
        """

        def __init__(self, event: Event) -> None:
            self.is_set = event.is_set
            self._event = event

        def wait(self, timeout: float) -> bool:
            """Waits as the event does, but for a shorter time."""
            return self._event.wait(min(timeout, seconds))

    flowers_own = vce_api.add_messages_to_queue

    def add_messages_to_queue(state: Any, queue: Any, nodes_mapping: Any, f_stop: Event) -> None:
        flowers_own(state, queue, nodes_mapping, Impatient(f_stop))

    vce_api.add_messages_to_queue = add_messages_to_queue


def _strategy(job: FlowerJob) -> Any:
    from flwr.common import ndarrays_to_parameters
    from flwr.server.strategy import FedAvg

    from benchmarks.flower_client import initial_net, weights_of

    class TimedFedAvg(FedAvg):
        """Averages, and takes the time and the metrics of every round."""

        def __init__(self) -> None:
            super().__init__(
                fraction_evaluate=0.0,
                min_fit_clients=job.parties,
                min_available_clients=job.parties,
                accept_failures=False,
                on_fit_config_fn=lambda server_round: {"round": server_round},
                fit_metrics_aggregation_fn=lambda _: {},
                initial_parameters=ndarrays_to_parameters(weights_of(initial_net())),
            )
            self.seconds: list[float] = []
            self.metrics: dict[str, list[float]] = {}
            self._ended = 0.0

        def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
            chosen = super().configure_fit(server_round, parameters, client_manager)
            if server_round == 1:
                self._ended = time.perf_counter()
            return chosen

        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            if failures or len(results) != job.parties:
                raise RuntimeError(f"round {server_round}: {len(results)} results, failures {failures}")
            average = super().aggregate_fit(server_round, results, failures)
            for name in results[0][1].metrics:
                # Batches are of one size.
                mean = sum(result.metrics[name] for _, result in results) / len(results)
                self.metrics.setdefault(name, []).append(mean)
            now = time.perf_counter()
            self.seconds.append(now - self._ended)
            self._ended = now
            return average

    return TimedFedAvg()


if __name__ == "__main__":
    main()
