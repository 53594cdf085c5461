"""Shared processes on a Ray cluster of two nodes: they spread, and the numbers stay what they are."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .training import BATCH, ROUNDS

# A program of its own: the tests' Ray runs in this process.
PROGRAM = """
import json
from types import SimpleNamespace

import ray
from ray.cluster_utils import Cluster

import secretflow as sf
from secretflow.security.aggregation.secagg.transport.local import LocalTransport
from tests.simulation.training import BATCH, make_data, make_model

NAMES = ["alice", "bob", "carol"]


def node_of(tenants):
    return ray.get_runtime_context().get_node_id()


def run():
    own = {name: 9 for name in NAMES}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "resources": own})
    cluster.add_node(num_cpus=4, resources=own)
    sf.init(NAMES, address=cluster.address, log_to_driver=False, logging_level="error")
    devices = SimpleNamespace(**{name: sf.PYU(name) for name in NAMES})
    found = {}
    for name in ("a process each", "shared", "shared, by the driver"):
        if name.endswith("driver"):  # as between machines, which no socket connects
            LocalTransport.open = classmethod(lambda cls, group: None)
        model = make_model(devices, **({} if name == "a process each" else {"worker_processes": 2}))
        history = model.fit(**make_data(devices), batch_size=BATCH, epochs=2, verbose=0, random_seed=5)
        weights = sf.reveal([worker.get_weights() for worker in model._workers.values()])
        found[name] = [array.tolist() for own in weights for array in own]
        if name != "a process each":
            nodes = [w.process.together(node_of, [p]) for p, w in model._workers.items()]
            assert len(set(sf.reveal(nodes))) == 2, "both processes on one node"
    same = [weights == found["a process each"] for weights in found.values()]
    print(json.dumps([len(history.global_history["loss"]), *same]))
    sf.shutdown()
    cluster.shutdown()


run()
"""


@pytest.mark.slow
def test_shared_processes_spread_over_two_nodes_with_the_bits_of_a_process_each() -> None:
    assert ROUNDS > 1 and BATCH
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [2, True, True, True]
