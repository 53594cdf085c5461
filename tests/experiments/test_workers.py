"""Work in several processes."""

from __future__ import annotations

import time
from multiprocessing import active_children

import torch

from experiments.workers import in_workers


def test_processes_are_ended_by_whoever_takes_no_more_results() -> None:
    an_hour = 3600.0
    results = in_workers(time.sleep, [0.0, an_hour, an_hour], 2, torch.set_num_threads, (1,))
    next(results)
    results.close()  # type: ignore[attr-defined]
    for child in active_children():
        child.join(60)
    assert not active_children()
