"""What came back, as a person sees it."""

from __future__ import annotations

import pytest
import torch

from secretflow.ml.nn.fl.audit.rows import Rows
from secretflow.ml.nn.fl.audit.shown import examples

IMAGES = Rows(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]), "images", ("a", "b"))
TABLE = Rows(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]), "table", ("a", "b"))


@pytest.mark.parametrize("rows", [IMAGES, TABLE], ids=["images", "table"])
def test_candidates_that_an_attacker_picked_are_not_said_to_have_come_back(rows: Rows) -> None:
    row = {"examples": [[0, rows.x[2].tolist()]]}
    picked = examples({**row, "picks": True}, rows)
    assert "picked by the attacker" in picked and "came back" not in picked
    assert "came back" in examples(row, rows)


def test_a_row_that_did_not_come_back_is_not_shown_as_a_guess() -> None:
    row = {"examples": [[0, None], [1, TABLE.x[1].tolist()]]}
    assert examples(row, TABLE).count('<span class="en">nothing</span>') == 1
    row = {"examples": [[0, None], [1, IMAGES.x[1].tolist()]]}
    assert "white where nothing came back" in examples(row, IMAGES)
