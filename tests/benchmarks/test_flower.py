import subprocess
import sys

import numpy as np
import pytest

from benchmarks.environment import ROOT
from benchmarks.flower import ratios
from benchmarks.flower_rounds import FlowerJob


def test_every_epoch_goes_through_all_rows_in_their_order():
    job = FlowerJob("images.npz", rounds=3, epochs=2, batch_size=4)
    rows = [np.arange(job.rows)[job.batch(number)].tolist() for number in range(1, 7)]
    assert np.concatenate(rows[:3]).tolist() == list(range(12))
    assert rows[3:] == rows[:3]


def test_values_of_rounds_become_means_of_epochs():
    assert FlowerJob("images.npz", rounds=2, epochs=2).by_epoch([1, 3, 5, 6]) == [2, 5.5]


def test_a_round_that_came_to_no_average_is_an_error():
    with pytest.raises(RuntimeError, match="3 rounds came to an average instead of 4"):
        FlowerJob("images.npz", rounds=2, epochs=2).by_epoch([1, 3, 5])


@pytest.mark.parametrize("name", ["parties", "rounds", "epochs", "batch_size"])
def test_a_number_that_is_too_small_is_refused_by_name_and_value(name):
    with pytest.raises(ValueError, match=f"{name} must be at least ., got 0"):
        FlowerJob("images.npz", **{name: 0})


def test_looking_in_less_than_no_time_is_refused():
    with pytest.raises(ValueError, match="poll must be at least 0, got -1"):
        FlowerJob("images.npz", poll=-1)


def test_the_weight_of_a_batch_fits_into_secure_aggregation():
    assert FlowerJob("images.npz", batch_size=64).secagg_settings()["max_weight"] == 64


def test_each_side_of_flower_is_compared_with_each_of_the_fork():
    sides = {
        "flower_plain": {"s": 6.0},
        "flower_secagg": {"s": 12.0},
        "fork_dense": {"s": 3.0},
        "fork": {"s": 2.0},
    }
    assert ratios(sides, "s") == {
        "flower_plain_over_fork_dense": 2,
        "flower_plain_over_fork": 3,
        "flower_secagg_over_fork_dense": 4,
        "flower_secagg_over_fork": 6,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "1"], "--rounds: must be at least 2, got 1"),
        (["--repeats", "0"], "--repeats: must be at least 1, got 0"),
    ],
)
def test_the_command_refuses_what_it_cannot_measure(arguments, message):
    command = [sys.executable, "-m", "benchmarks.flower", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
