"""The training function that docs/production.md prints, on a CSV file of each party, started twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from secretflow.ml.nn.fl.backend.torch.checkpoint import read_checkpoint
from tests.production.network import PARTIES, Network, loopback
from tests.production.observed import GUIDE, set_up, started

pytestmark = pytest.mark.slow

SECONDS = 240.0
FEATURES, SERVER = 12, "carol"


def write_rows(path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(300, FEATURES))
    rows = pd.DataFrame(x, columns=[f"x{k}" for k in range(FEATURES)])
    rows.assign(label=(x[:, 0] + x[:, 1] > 0).astype(float)).to_csv(path, index=False)


def run(home: Path, network: Network) -> None:
    """Starts all parties by the guide's line, the server without data, and waits for their end."""
    (line,) = re.findall(r"^python (-m secretflow\.party run .* --train ward:train .*)$", GUIDE, re.MULTILINE)
    lines = {party: line.replace("alice", party) for party in PARTIES}
    lines[SERVER] = lines[SERVER].partition(" --option")[0]
    with started(home, network, {party: own.split() for party, own in lines.items()}) as programs:
        assert [process.wait(SECONDS) for process in programs.going.values()] == [0, 0, 0]


def test_the_guides_own_function_trains_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    home, network = tmp_path / "home", loopback()
    set_up(home, network, settings={"epochs": 1})
    (home / "ward.py").write_text(
        next(block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "def train(" in block)
    )
    trainers = [party for party in PARTIES if party != SERVER]
    for seed, party in enumerate(trainers):
        write_rows(home / f"{party}.csv", seed)
    for epochs in (1, 3):
        cluster = json.loads((home / "cluster.json").read_text())
        (home / "cluster.json").write_text(json.dumps({**cluster, "settings": {"epochs": epochs}}))
        run(home, network)
        for party in trainers:
            out = home / party
            assert read_checkpoint(out / "model")["epoch"] == epochs
            assert (out / "model.safetensors").stat().st_size > 0
        assert not (home / SERVER / "model").exists()
