"""A party's checkpoint as a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secretflow.ml.nn.fl.backend.torch.checkpoint import previous_of, write_checkpoint


@pytest.mark.parametrize("keep_previous", [False, True])
def test_only_its_owner_may_read_a_checkpoint_and_the_one_before(tmp_path: Path, keep_previous: bool) -> None:
    path = tmp_path / "alice" / "model"
    for epoch in (1, 2):
        write_checkpoint(path, _checkpoint(epoch), keep_previous)
    kept = [path, previous_of(path)] if keep_previous else [path]
    assert sorted(path.parent.iterdir()) == kept
    assert [file.stat().st_mode & 0o777 for file in kept] == [0o600] * len(kept)
    assert [torch.load(file)["epoch"] for file in kept] == [2, 1][: len(kept)]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_checkpoint(path, _checkpoint(1))
    with pytest.raises(
        ValueError, match=r"withheld must be a tensor, number or text.*got a builtins.function"
    ):
        write_checkpoint(path, {**_checkpoint(2), "withheld": lambda: None}, keep_previous=True)
    assert list(tmp_path.iterdir()) == [path] and torch.load(path)["epoch"] == 1


def _checkpoint(epoch: int) -> dict[str, object]:
    names = ("model_state_dict", "optimizer_state_dict", "optimizers", "rounds", "mask_scope", "prune_mask")
    return {**dict.fromkeys((*names, "mask_changed", "withheld")), "epoch": epoch}
