"""Updates that come out the same when they are made again are refused, and nearly the same ones named."""

from __future__ import annotations

import logging

import pytest
import torch

from secretflow.ml.nn.fl.worker.data import batch_loader
from secretflow.ml.nn.fl.worker.repeated_updates import check_updates_differ

ROWS = 12


@pytest.mark.parametrize(
    ("batch", "ends", "warned"),
    [(3, [1, 2, 3, 4], False), (3, [2, 4], False), (3, [4], True), (3, [1, 2, 6], True), (11, [1, 2], False)],
)
def test_who_goes_through_all_rows_in_a_round_is_told_what_that_shows(
    batch: int, ends: list[int], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    loader = batch_loader([torch.arange(ROWS)], batch, shuffle=True, batches=ends[-1], cycle=True)
    with caplog.at_level(logging.WARNING):
        check_updates_differ(loader, ends, "alice")
    assert ("alice: a round goes through all of its rows" in caplog.text) is warned


def test_one_batch_of_all_rows_is_refused() -> None:
    loader = batch_loader([torch.arange(ROWS)], ROWS, shuffle=True, batches=3, cycle=True)
    with pytest.raises(ValueError, match=r"batch_size must be less than the rows of alice, 12, .*got 12$"):
        check_updates_differ(loader, [1, 2, 3], "alice")
