import pytest

from benchmarks.rounds import round_figures
from benchmarks.training import TARGETS, judged


def _runs(*means: float) -> list[dict]:
    """Runs of two counted epochs behind one that warms up."""
    return [{"epochs": [100.0, mean / 2, mean * 1.5]} for mean in means]


def test_the_median_counts_of_the_ratios_of_runs_that_followed_each_other():
    reports = {
        "upstream_secure": _runs(40.0, 90.0, 60.0),
        "fork": _runs(4.0, 3.0, 5.0),
        "arithmetic": _runs(2.0, 2.0, 2.0),
    }
    figures = round_figures(reports, rounds=10)
    assert set(figures) == {"round"}
    assert figures["round"]["ratio_vs_upstream_secure"] == 12.0  # of 10, 30 and 12
    assert figures["round"]["over_arithmetic"] == 2.0  # of 2, 1.5 and 2.5


def test_the_main_job_is_told_without_its_evaluation_and_with_it():
    main_job = [{**run, "evaluation": [100.0, 1.0, 3.0]} for run in _runs(6.0)]
    reports = {"fork": _runs(3.0), "same_rows": _runs(4.0), "main_job": main_job}
    figures = round_figures(reports, rounds=10)["main_job"]
    assert figures == {
        "over_benchmark_round": 1.5,
        "over_benchmark_round_of_32_rows": 2.0,
        "over_benchmark_round_with_evaluation": 2.0,
        "round_milliseconds": 600.0,
        "benchmark_round_milliseconds": 400.0,
    }


@pytest.mark.parametrize(
    ("name", "met", "missed"),
    [
        ("round.ratio_vs_upstream_secure", 10.0, 9.9),
        ("round.over_arithmetic", 1.6, 1.7),
        ("main_job.over_benchmark_round", 1.15, 1.2),
        ("start.ratio", 3.0, 2.9),
        ("start.large_model_over_upstream", 1.2, 1.3),
    ],
)
def test_a_missed_target_is_said(name, met, missed):
    part, key = name.split(".")
    assert name in TARGETS
    assert judged({part: {key: met}})["missed"] == []
    result = judged({part: {key: missed}})
    assert result["missed"] == [name]
    assert result["targets"][name] == {"measured": missed, "target": met, "met": False}
