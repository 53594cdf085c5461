"""What the published methods of the sparse evaluation begin with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from experiments.sparse.grid import made
from experiments.sparse.job import Job


@pytest.mark.parametrize("method", ["FedDST", "FedRTS"])
@pytest.mark.parametrize("seed", [1, 7])
def test_a_random_mask_does_not_go_by_the_initial_weights(method: str, seed: int) -> None:
    torch.manual_seed(seed)
    initial = nn.Linear(200, 200).weight.detach()[None]
    job = Job({"w": initial.clone()}, {"w": torch.ones_like(initial)}, {}, seed, {}, 0.0, 20)
    made(method, 0.1)[0].start(job, 80)
    kept = job.weights["w"][job.masks["w"] != 0]
    assert len(kept) == 4000
    assert 0.45 < float((kept > 0).float().mean()) < 0.55
    assert float(kept.abs().mean()) == pytest.approx(float(initial.abs().mean()), rel=0.05)
