import json
import logging
import os
import re
import stat

import numpy as np
import pytest
import torch

from secretflow.ml.nn.fl.worker.capture import CaptureRounds, GradientCapture
from secretflow.ml.nn.fl.worker.capture_files import load_capture, optimizer_settings, write_capture


@pytest.fixture
def parts():
    """A capture of one image and a net with one pruned layer and a bias."""
    weight = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    return {
        "x": torch.rand(1, 1, 2, 1),
        "y": torch.tensor([[0.0, 1.0]]),
        "weights": {"fc.weight": weight, "fc.bias": torch.tensor([0.5, 0.0]), "seen": torch.tensor(3)},
        "mask": {"fc.weight": torch.tensor([[1, 0], [0, 1]], dtype=torch.uint8)},
        "gradients": [torch.rand(2, 2), torch.rand(2)],
        "party": "alice",
        "round_number": 4,
        "density": 0.5,
    }


def test_what_is_written_is_read_back(tmp_path, parts):
    write_capture(str(tmp_path / "a" / "capture"), **parts)
    capture = load_capture(tmp_path / "a" / "capture")
    assert torch.equal(capture.x, parts["x"]) and torch.equal(capture.y, parts["y"])
    for name, value in parts["weights"].items():
        assert torch.equal(capture.weights[name], value)
    assert torch.equal(capture.mask["fc.weight"], parts["mask"]["fc.weight"])
    assert all(map(torch.equal, capture.gradients, parts["gradients"]))
    assert (capture.party, capture.round_number, capture.density) == ("alice", 4, 0.5)


def test_the_seeds_file_names_are_there(tmp_path, parts):
    write_capture(str(tmp_path / "capture"), **parts)
    names = {file.name for file in (tmp_path / "capture").iterdir()}
    assert {"gradients0.npy", "gradients1.npy", "x.pt", "y.pt"} <= names


def test_only_the_owner_can_read_a_capture_whatever_the_umask(tmp_path, parts):
    old = os.umask(0)
    try:
        write_capture(str(tmp_path / "capture"), **parts)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "capture").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "capture").iterdir()} == {0o600}


def test_writing_is_logged_loudly(tmp_path, parts, caplog):
    with caplog.at_level(logging.WARNING):
        write_capture(str(tmp_path / "capture"), **parts)
    assert "alice" in caplog.text and str(tmp_path / "capture") in caplog.text


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path, parts):
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(FileExistsError, match="directory must be new or empty"):
        write_capture(str(tmp_path), **parts)
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]


def test_a_capture_that_fails_leaves_nothing(tmp_path, parts, monkeypatch):
    def no_space(*_):
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(OSError, match="no space"):
        write_capture(str(tmp_path / "capture"), **parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("y", torch.zeros(2, 2), r"y must be labels of the 1 rows of x, .*got 2"),
        ("gradients", [torch.rand(2, 2), torch.rand(3)], r"gradients\[1\] must be"),
        ("gradients", [], "gradients must be of at least one"),
        ("mask", {"other.weight": torch.ones(2, 2)}, "other.weight"),
        (
            "mask",
            {"fc.weight": torch.tensor([[1, 0], [0, 2]])},
            r"must be of 0 and 1, got \[0, 1, 2\]",
        ),
        ("mask", {"fc.weight": torch.tensor([[0, 0], [1, 1]])}, "must be zero where the mask is"),
        ("density", 0.6, r"density must be .* 2 of 4, got 0\.6"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path, parts, part, value, message):
    with pytest.raises(ValueError, match=message):
        write_capture(str(tmp_path / "capture"), **{**parts, part: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.pt", "mask.pt", "weights.pt", "meta.json"])
def test_a_missing_file_is_named(tmp_path, parts, name):
    write_capture(str(tmp_path / "capture"), **parts)
    (tmp_path / "capture" / name).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(name)):
        load_capture(tmp_path / "capture")


def test_a_missing_gradient_is_noticed(tmp_path, parts):
    write_capture(str(tmp_path / "capture"), **parts)
    (tmp_path / "capture" / "gradients1.npy").unlink()
    with pytest.raises(ValueError, match="gradients must be 2 files, got 1"):
        load_capture(tmp_path / "capture")


def test_a_changed_density_is_noticed(tmp_path, parts):
    write_capture(str(tmp_path / "capture"), **parts)
    meta = tmp_path / "capture" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "density": 1.0}))
    with pytest.raises(ValueError, match=r"density must be .* got 1\.0"):
        load_capture(tmp_path / "capture")


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("code in a capture was run",))


def test_loading_runs_no_code_of_the_file(tmp_path, parts):
    write_capture(str(tmp_path / "capture"), **parts)
    torch.save(_Trap(), tmp_path / "capture" / "x.pt")
    with pytest.raises(ValueError, match=r"must be a file of tensors"):
        load_capture(tmp_path / "capture")


def test_one_round_is_written_into_the_folder_itself_and_several_beside_each_other():
    one = GradientCapture("/here", "alice", (3,))
    assert one.folder("alice", 3) == "/here"
    assert one.folder("alice", 2) is None
    assert one.folder("bob", 3) is None
    assert GradientCapture("/here", "alice", (0, 3)).folder("alice", 3) == "/here/round-3"


@pytest.mark.parametrize(
    ("chosen", "error"),
    [
        ({"directory": ""}, ValueError),
        ({"directory": 3}, TypeError),
        ({"party": ""}, ValueError),
        ({"rounds": ()}, ValueError),
        ({"rounds": (-1,)}, ValueError),
        ({"rounds": (1, 1)}, ValueError),
        ({"rounds": [0]}, TypeError),
        ({"rounds": (True,)}, TypeError),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused_by_name(chosen, error):
    with pytest.raises(error, match=next(iter(chosen))):
        GradientCapture(**{"directory": "/here", "party": "alice", **chosen})


def rounds_captured(chosen, rounds=6, changes=(2, 4)):
    capture = GradientCapture("/here", "alice", chosen)
    return [
        number
        for number in range(rounds)
        if capture.folder("alice", number, is_last=number == rounds - 1, mask_changed=number in changes)
    ]


def test_rounds_are_chosen_by_number_or_by_what_happens_in_them():
    assert rounds_captured(CaptureRounds(first=True)) == [0]
    assert rounds_captured(CaptureRounds(last=True)) == [5]
    assert rounds_captured(CaptureRounds(after_mask_change=True)) == [2, 4]
    assert rounds_captured(CaptureRounds((3,), first=True, last=True)) == [0, 3, 5]
    assert rounds_captured((1, 3)) == [1, 3]


def test_only_a_choice_of_one_round_writes_into_the_folder_itself():
    first = GradientCapture("/here", "alice", CaptureRounds(first=True))
    assert first.folder("alice", 0) == "/here"
    # Each fit has a last round.
    last = GradientCapture("/here", "alice", CaptureRounds(last=True))
    assert last.folder("alice", 7, is_last=True, mask_changed=False) == "/here/round-7"
    changes = GradientCapture("/here", "alice", CaptureRounds(after_mask_change=True))
    assert changes.folder("alice", 7, is_last=False, mask_changed=True) == "/here/round-7"


@pytest.mark.parametrize(
    ("rounds", "there", "next_round", "is_free"),
    [
        ((4,), "x.pt", 4, False),
        ((4,), "x.pt", 5, True),  # its own capture, which a resumed run finds
        (CaptureRounds(first=True), "x.pt", 0, False),
        ((0, 4), "round-4/x.pt", 4, False),
        ((0, 4), "round-0/x.pt", 1, True),
        (CaptureRounds(last=True), "round-10/x.pt", 9, False),
        (CaptureRounds(last=True), "round-7/x.pt", 9, True),
    ],
)
def test_captures_of_rounds_to_come_need_a_place(tmp_path, rounds, there, next_round, is_free):
    path = tmp_path / there
    path.parent.mkdir(exist_ok=True)
    path.touch()
    capture = GradientCapture(str(tmp_path), "alice", rounds)
    if is_free:
        capture.check_free(next_round)
    else:
        with pytest.raises(FileExistsError, match=r"directory must .* never mixed or overwritten"):
            capture.check_free(next_round)


def test_the_settings_of_the_optimiser_are_written_and_read(tmp_path, parts):
    weight = torch.nn.Parameter(torch.zeros(2))
    settings = optimizer_settings(torch.optim.Adam([weight], lr=0.01, betas=(0.8, 0.9)))
    write_capture(str(tmp_path / "capture"), **parts, optimizer=settings)
    read = load_capture(tmp_path / "capture").optimizer
    assert read == settings and read["name"] == "Adam"
    assert (read["groups"][0]["lr"], read["groups"][0]["betas"]) == (0.01, [0.8, 0.9])


def test_settings_of_an_optimiser_without_its_name_are_refused(tmp_path, parts):
    with pytest.raises(ValueError, match="optimizer"):
        write_capture(str(tmp_path / "capture"), **parts, optimizer={"lr": 1.0})


def test_a_choice_of_no_round_is_refused():
    with pytest.raises(ValueError, match="rounds"):
        CaptureRounds()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ((torch.tensor(0.5), torch.tensor(0.75)), [0.5, 0.75]),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0]),
        (np.float32(0.5), 0.5),
        ([np.int64(3), {"a": np.arange(2)}], [3, {"a": [0, 1]}]),
        ({2: (True, None)}, {"2": [True, None]}),
        ({"a": torch.float32}, {"a": "torch.float32"}),
        ((1j, "x"), ["1j", "x"]),
    ],
    ids=str,
)
def test_whatever_a_group_holds_can_be_written(tmp_path, parts, value, written):
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(2))], "note": value}], lr=0.1)
    write_capture(str(tmp_path / "capture"), **parts, optimizer=optimizer_settings(optimizer))
    assert load_capture(tmp_path / "capture").optimizer["groups"][0]["note"] == written
