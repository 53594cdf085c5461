"""The command goes on where it stopped, and its rows say what was asked of them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from experiments.sparse.grid import PARTS, Cell, cells, made
from experiments.sparse.results import Row, with_bytes_to_target
from experiments.sparse.tasks import SPLITS, load, recipe_of, rows_of, split
from experiments.sparse_training import main, those_with
from secretflow.ml.nn.fl.pruning import PruneSettings

ONE = ["--only", "breast-cancer,dirichlet-0.5,5,ours,0.1,1"]


def test_a_second_call_repeats_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ONE, "--out", str(tmp_path)]) == 0
    first = (tmp_path / "sparse.json").read_bytes()
    (row,) = json.loads(first)
    assert (row["method"], row["density"], row["seed"], row["parties"]) == ("ours", 0.1, 1, 5)
    assert row["accuracy"] > 80 and row["bytes"] == row["curve"][-1][1]
    capsys.readouterr()
    assert main([*ONE, "--out", str(tmp_path)]) == 0
    assert "1 runs, 1 of them done before" in capsys.readouterr().err
    assert (tmp_path / "sparse.json").read_bytes() == first
    assert "breast-cancer, table-net" in (tmp_path / "sparse.md").read_text(encoding="utf-8")


def test_several_processes_come_to_the_rows_of_one(tmp_path: Path) -> None:
    two = ["--only", "breast-cancer,dirichlet-0.5,5,ours,1"]
    found = []
    for processes in ("1", "2"):
        assert main([*two, "--workers", processes, "--out", str(tmp_path / processes)]) == 0
        rows = json.loads((tmp_path / processes / "sparse.json").read_bytes())
        found.append(sorted((row["density"], row["accuracy"], row["bytes"]) for row in rows))
    assert found[0] == found[1]
    assert [density for density, *_ in found[0]] == [0.05, 0.1]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--only", "breast-cancer,ourz"], "--only must name values of runs, .* got 'ourz'"),
        (["--only", "seed=7"], "seed of 1, 2, 3, 4, 5, 6, got 'seed=7'"),
        (["--minutes", "-1"], "--minutes: must be at least 0, got -1"),
    ],
)
def test_what_no_run_has_is_refused(
    options: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*options, "--out", str(tmp_path)])
    assert re.search(what, capsys.readouterr().err)


def test_a_value_is_of_the_field_that_is_named() -> None:
    found = those_with("breast-cancer,ours,0.1,parties=2", cells())
    assert {(cell.seed, cell.parties) for cell in found} == {(seed, 2) for seed in (1, 2, 3)}
    assert {cell.parties for cell in those_with("breast-cancer,ours,0.1,2", cells())} > {2}


def test_ours_is_what_one_gets_who_sets_the_density_alone() -> None:
    assert made("ours", 0.05)[1] == PruneSettings(prune_end_rate=0.05)


def test_every_cell_has_a_method() -> None:
    for part in PARTS:
        for method, density in {(cell.method, cell.density) for cell in cells(part)}:
            made(method, density)


def test_measured_seeds_are_not_those_of_the_tuning() -> None:
    measured, tuned = ({cell.seed for cell in cells(part)} for part in ("measured", "tuning"))
    assert not measured & tuned


def test_every_split_deals_each_row_once_and_each_party_a_row_for_each_batch() -> None:
    labels = {name: load(name).y.numpy() for name in ("digits", "breast-cancer")}
    images = np.random.default_rng(0).integers(0, 10, 60_000)
    tasks = {cell._replace(method="", density=1.0) for cell in cells()}
    assert {task.split for task in tasks} == set(SPLITS)
    for task in tasks:
        held = split(labels.get(task.dataset, images), task.dataset, task.split, task.parties, task.seed)
        rows = np.concatenate(held)
        assert len(held) == task.parties and len(set(rows.tolist())) == len(rows) == rows_of(task.dataset)
        recipe = recipe_of(task.dataset, task.model, task.parties, task.optimizer, task.learning_rate)
        batches = math.ceil(len(rows) / (recipe.batch_size * task.parties))
        assert min(map(len, held)) >= batches, task


def test_every_third_of_unequal_parties_has_a_tenth_of_the_others_rows() -> None:
    held = split(np.zeros(60_000, np.int64), "mnist", "unequal", 7, 1)
    assert [round(len(rows) / len(held[0]), 2) for rows in held] == [1, 1, 0.1, 1, 1, 0.1, 1]


def _row(method: str, accuracies: list[float], learning_rate: float = 0.01) -> Row:
    curve = [[accuracy, 100 * number, 1.0, 0.0] for number, accuracy in enumerate(accuracies, start=1)]
    cell = Cell("digits", "lstm", "iid", 5, method, 1.0, 1, "adam", learning_rate)
    return {**cell._asdict(), "curve": curve}


def test_bytes_to_target_are_those_of_the_first_epoch_one_point_below_dense() -> None:
    dense = _row("dense", [80.0, 90.0, 90.0, 90.0, 99.0])  # what the last epoch says is of other rows
    others = [_row("ours", [70.0, 89.0, 95.0, 95.0, 95.0]), _row("local", [70.0, 80.0, 88.9, 88.9, 99.0])]
    assert [each["bytes_to_target"] for each in with_bytes_to_target([dense, *others])] == [200, 200, None]
    assert [each["bytes_to_target"] for each in with_bytes_to_target(others)] == [None, None]


def test_a_target_is_that_of_dense_training_with_the_same_learning_rate() -> None:
    dense = [_row("dense", [80.0, 90.0, 90.0, 90.0, 90.0]), _row("dense", [50.0] * 5, 0.001)]
    others = [
        _row("ours", [60.0, 70.0, 89.5, 90.0, 90.0]),
        _row("ours", [40.0, 49.5, 50.0, 50.0, 50.0], 0.001),
    ]
    filled = with_bytes_to_target([*dense, *others])
    assert [row["bytes_to_target"] for row in filled] == [200, 100, 300, 200]
