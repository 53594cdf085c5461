"""Three parties, each a process and a Ray of its own, over the network of this machine."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PARTIES = ("alice", "bob", "carol")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.production
@pytest.mark.slow
def test_a_pruned_model_is_trained_by_three_processes(tmp_path: Path) -> None:
    addresses = {
        party: f"127.0.0.1:{port}" for party, port in zip(PARTIES, _free_ports(len(PARTIES)), strict=True)
    }
    cluster = tmp_path / "cluster.json"
    settings = {"rows": 96, "epochs": 2, "prune_percent": 40, "prune_end_rate": 0.5}
    cluster.write_text(
        # The server trains as well, so that three parties pad for each other.
        json.dumps({"parties": addresses, "server": "carol", "trainers": list(PARTIES), "settings": settings})
    )
    processes = {
        party: subprocess.Popen(
            [
                *(sys.executable, str(ROOT / "experiments/production.py"), "--party", party),
                *("--cluster", str(cluster), "--out", party),
            ],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=(tmp_path / f"{party}.log").open("w"),
        )
        for party in PARTIES
    }
    try:
        for party, process in processes.items():
            assert process.wait(timeout=240) == 0, (tmp_path / f"{party}.log").read_text()[-3000:]
    finally:
        for process in processes.values():
            process.kill()

    histories = [json.loads((tmp_path / party / "history.json").read_text()) for party in PARTIES]
    for history in histories:  # every driver has a clock of its own
        assert history.pop("seconds") and history.pop("evaluate_seconds")
    assert histories[0] == histories[1] == histories[2]
    assert histories[0]["living_rate"] == pytest.approx([0.6, 0.5], abs=1e-3)
    for party in PARTIES:
        saved = torch.load(tmp_path / party / "model")["model_state_dict"]
        living = sum(int((saved[f"{layer}.weight"] != 0).sum()) for layer in ("conv1", "fc"))
        assert living == round(1947 * histories[0]["living_rate"][-1])
