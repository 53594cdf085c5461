import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.jobs import Jobs, Side, summary
from benchmarks.training_job import own_rows

SCRIPT = """
import json, sys, time
job = json.loads(sys.argv[1])
if job["rounds"] == 0:
    sys.exit("no rounds")
with open(sys.argv[2], "w") as out:
    json.dump({"ended": time.time(), "job": job}, out)
"""


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    side = Side(Path(sys.executable), script, {"secure": False})
    return Jobs(tmp_path / "images.npz", {"plain": side, "secure": side.with_settings(secure=True)})


def test_the_same_job_of_each_side_runs_with_its_own_settings(jobs: Jobs, tmp_path: Path) -> None:
    reports = jobs.alternate(2, rounds=3)
    images = str(tmp_path / "images.npz")
    for (name, done), secure in zip(reports.items(), (False, True), strict=True):
        assert [report["job"] for report in done] == [{"rounds": 3, "images": images, "secure": secure}] * 2
        assert all(0 < report["ended"] - report["began"] < 60 for report in done), name


def test_a_job_that_fails_is_an_error_with_what_it_said(jobs: Jobs) -> None:
    with pytest.raises(RuntimeError, match=r"plain .* failed:\nno rounds"):
        jobs.run("plain", rounds=0)


def test_the_first_epoch_is_not_counted() -> None:
    report = {"epochs": [100, 2, 6], "history": {"multiclassaccuracy": [0.1, 0.5], "loss": [3]}}
    assert summary([report], rounds=2) == {
        "round_seconds": [1, 3],
        "round_mean": 2,
        "round_median": 2,
        "metrics": {"multiclassaccuracy": 0.5},
    }


def test_parties_have_rows_of_their_own_and_begin_anew_behind_the_last(tmp_path: Path) -> None:
    images = tmp_path / "images.npz"
    pixels = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    np.savez(images, x=pixels, y=np.arange(5, dtype=np.uint8))
    (_, first), (x, second) = (own_rows(str(images), party, rows=3) for party in range(2))
    assert first.argmax(-1).tolist() == [0, 1, 2]
    assert second.argmax(-1).tolist() == [3, 4, 0]
    assert x.shape == (3, 1, 28, 28) and x.dtype == np.float32
    assert np.allclose(x[:, 0, 0, 0], np.array([3, 4, 0]) / 255)
