import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments import plots
from experiments.report import Report, plain_picture, pruned_picture, remove_stale
from experiments.settings import make_parser, parse_settings
from experiments.test_h_nn_prune import main
from secretflow.ml.nn.fl.attacks import Snapshot

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "test_h_nn_prune.py"


def settings(tmp_path, *arguments):
    return parse_settings(make_parser(), ["--out", str(tmp_path / "out"), *arguments])


def test_help_explains_every_flag_and_runs_from_any_directory(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    flags = [action for action in make_parser()._actions if action.option_strings]
    assert all(flag.help and flag.option_strings[-1] in done.stdout for flag in flags)
    assert list(tmp_path.iterdir()) == []


def test_the_defaults_are_the_seeds_settings(tmp_path):
    chosen = settings(tmp_path)
    assert chosen.plain and chosen.pruned
    assert (chosen.epochs, chosen.batch_size, chosen.prune_end_rate, chosen.prune_percent) == (10, 32, 0.1, 5)
    assert plain_picture(chosen) == "FL_Model_accuracy_convnet_10_32_mnist.jpg"
    assert pruned_picture(chosen) == "FL_prune_0.1_5_Model_accuracy_convnet_10_32_mnist.jpg"


def test_one_of_the_two_runs_can_be_chosen(tmp_path):
    assert not settings(tmp_path, "--prune").plain
    assert not settings(tmp_path, "--no-prune").pruned


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "0"],
        ["--epochs", "two"],
        ["--batch-size", "683"],
        ["--rows", "4"],
        ["--seed", "-1"],
        ["--prune-end-rate", "0"],
        ["--prune-end-rate", "1.1"],
        ["--prune-end-rate", "nan"],
        ["--prune-percent", "100"],
        ["--prune-percent", "0"],
        ["--attack-image", "-1"],
        ["--attack-iterations", "0"],
        ["--restarts", "0"],
        ["--data", "/nowhere/mnist.npz"],
        ["--rows", "10", "--attack-image", "4"],
        ["--prune", "--no-prune"],
    ],
)
def test_a_flag_that_is_not_allowed_ends_the_program_before_anything_starts(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(tmp_path), *arguments])
    assert stopped.value.code == 2
    assert arguments[-1] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_out_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        parse_settings(make_parser(), ["--out", str(tmp_path / "file")])
    assert stopped.value.code == 2 and "--out" in capsys.readouterr().err


def test_files_of_an_earlier_run_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "sf_output" / "dense").mkdir(parents=True)
    own = [
        "report.json",
        "contrast_before_prune.jpg",
        "contrast_after_prune.jpg",
        "comparison_of_validation_accuracy.jpg",
        "FL_Model_accuracy_convnet_3_64_mnist.jpg",
        "FL_prune_0.25_7.5_Model_accuracy_convnet_3_64_mnist.jpg",
        "sf_output/gradients11.npy",
        "sf_output/x.pt",
        "sf_output/dense/mask.pt",
        "sf_output/meta.json",
    ]
    foreign = [
        "README.md",
        "my_report.json",
        "FL_Model_accuracy_convnet_3_64_mnist.jpg.bak",
        "sf_output/notes.txt",
        "gradients0.npy",
    ]
    for name in own + foreign:
        (tmp_path / name).write_text("")
    assert sorted(remove_stale(tmp_path)) == sorted(tmp_path / name for name in own)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == set(
        foreign
    )


def test_the_report_is_there_and_whole_after_every_stage(tmp_path):
    chosen = settings(tmp_path, "--epochs", "3")
    path = chosen.out / "report.json"
    written = Report(chosen, {"source": "none"})
    first = json.loads(path.read_text())
    assert first["complete"] is False and first["settings"]["epochs"] == 3 and "torch" in first["versions"]
    written.training("plain", epochs=[{"epoch": 1}])
    written.attack(before_prune={"loss": math.inf})
    written.complete()
    last = json.loads(path.read_text())
    assert last["training"]["plain"]["epochs"] == [{"epoch": 1}]
    assert last["attack"]["before_prune"]["loss"] is None  # JSON has no infinity
    assert last["complete"] is True
    assert [file.name for file in chosen.out.iterdir()] == ["report.json"]


def test_a_report_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    chosen = settings(tmp_path)
    written = Report(chosen, {})
    before = (chosen.out / "report.json").read_text()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        written.complete()
    assert (chosen.out / "report.json").read_text() == before
    assert [file.name for file in chosen.out.iterdir()] == ["report.json"]


@pytest.mark.parametrize(("length", "count"), [(1, 1), (5, 5), (30, 30), (301, 30)])
def test_a_picture_shows_first_and_last_frame_and_no_more_than_fit(length, count):
    history = [Snapshot(number, 0.0, torch.zeros(1, 1, 2, 2)) for number in range(length)]
    chosen = [frame.iteration for frame in plots.spread(history, 30)]
    assert len(chosen) == count and chosen[0] == 0 and chosen[-1] == length - 1
    assert chosen == sorted(set(chosen))
