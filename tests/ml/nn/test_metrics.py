"""Federated metrics give what keras gives, without TensorFlow."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from secretflow.ml.nn.metrics import AUC, Default, Mean, Metric, Precision, Recall, aggregate_metrics

# Counts of eight rows at six thresholds and the areas that keras 2.15.1 gives for them
# (tf.keras.metrics.AUC(num_thresholds=6, curve=...)); keras 2.11.0 gives the same.
COUNTS = {
    "thresholds": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    "true_positives": [4.0, 4.0, 3.0, 3.0, 1.0, 0.0],
    "true_negatives": [0.0, 2.0, 3.0, 4.0, 4.0, 4.0],
    "false_positives": [4.0, 2.0, 1.0, 0.0, 0.0, 0.0],
    "false_negatives": [0.0, 0.0, 1.0, 1.0, 3.0, 4.0],
}
KERAS_AREAS = {"ROC": 0.90625, "PR": 0.9256831407546997}

# Eight rows whose classes overlap, and what keras 2.11.0 gives for them: AUC(num_thresholds=6, curve=...),
# Precision(thresholds=[0.3, 0.5, 0.75]) and Recall of the same, each after update_state(TRUTH, SCORES).
TRUTH = np.array([0, 1, 1, 0, 1, 0, 1, 0])
SCORES = np.array([0.1, 0.9, 0.35, 0.4, 0.8, 0.2, 0.6, 0.7])
KERAS_OVERLAPPING_AREAS = {"ROC": 0.8125, "PR": 0.7974258661270142}
KERAS_PRECISIONS = [0.6666666865348816, 0.75, 1.0]
KERAS_RECALLS = [1.0, 0.75, 0.5]


def counted(truth: np.ndarray, scores: np.ndarray, thresholds: list[float]) -> dict[str, list[float]]:
    """The counts of rows at each threshold, as keras names them."""
    above = scores[None] > np.array(thresholds)[:, None]
    return {
        "true_positives": (above & (truth == 1)).sum(axis=1).tolist(),
        "true_negatives": (~above & (truth == 0)).sum(axis=1).tolist(),
        "false_positives": (above & (truth == 0)).sum(axis=1).tolist(),
        "false_negatives": (~above & (truth == 1)).sum(axis=1).tolist(),
    }


def test_metrics_load_neither_tensorflow_nor_torch_nor_ray_even_for_a_result() -> None:
    code = (
        "import sys; from secretflow.ml.nn.metrics import AUC, Mean; Mean('mean', 1, 2).result();"
        "AUC('auc', [0, 1], [1, 0], [0, 1], [1, 0], [0, 1]).result(); print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "secretflow.ml.nn.metrics" in loaded
    assert not {"tensorflow", "keras", "torch", "ray"} & loaded


@pytest.mark.parametrize("curve", ["ROC", "PR"])
def test_an_area_is_that_of_keras(curve: str) -> None:
    assert float(AUC("auc", **COUNTS, curve=curve).result()) == pytest.approx(KERAS_AREAS[curve], abs=1e-6)
    # The outer thresholds are keras' own: just outside of [0, 1], so that a score of 0 or 1 is counted too.
    thresholds = [-1e-7, 0.2, 0.4, 0.6 + 1e-9, 0.8 + 1e-9, 1 + 1e-7]
    overlapping = AUC("auc", thresholds, **counted(TRUTH, SCORES, thresholds), curve=curve)
    assert float(overlapping.result()) == pytest.approx(KERAS_OVERLAPPING_AREAS[curve], abs=1e-6)


def test_precision_and_recall_at_several_thresholds_are_those_of_keras() -> None:
    thresholds = [0.3, 0.5, 0.75]
    count = counted(TRUTH, SCORES, thresholds)
    precision = Precision("precision", thresholds, count["true_positives"], count["false_positives"])
    recall = Recall("recall", thresholds, count["true_positives"], count["false_negatives"])
    assert precision.result().numpy().tolist() == KERAS_PRECISIONS
    assert recall.result().numpy().tolist() == KERAS_RECALLS


def test_the_curve_is_roc_unless_told_and_may_be_a_member_of_keras_enumeration() -> None:
    assert float(AUC("auc", **COUNTS).result()) == pytest.approx(KERAS_AREAS["ROC"])
    member = SimpleNamespace(value="PR")
    assert float(AUC("auc", **COUNTS, curve=member).result()) == pytest.approx(KERAS_AREAS["PR"])
    with pytest.raises(ValueError, match="curve must be 'ROC' or 'PR', got 'DET'"):
        AUC("auc", **COUNTS, curve="DET")


def test_with_many_thresholds_the_area_is_the_probability_of_the_right_order() -> None:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 2, 400)
    scores = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0.001, 0.999)
    thresholds = np.linspace(0, 1, 5001).tolist()
    area = AUC("auc", thresholds, **counted(truth, scores, thresholds)).result()
    assert float(area) == pytest.approx(roc_auc_score(truth, scores), abs=2e-3)


def test_one_threshold_gives_a_number_and_several_an_array() -> None:
    one = Precision("precision", [0.5], [3.0], [1.0]).result().numpy()
    assert isinstance(one, np.float32)
    assert one == 0.75
    # Upstream's torch backend gives Recall a list of one threshold and counts that are no lists.
    bare = Recall("recall", [0.5], np.float32(3), np.float32(1)).result().numpy()
    assert isinstance(bare, np.float32)
    assert bare == 0.75
    several = Recall("recall", [0.2, 0.8], [3.0, 1.0], [1.0, 3.0]).result().numpy()
    assert several.tolist() == [0.75, 0.25]


def test_a_metric_of_nothing_is_zero() -> None:
    assert float(Mean("mean", 0.0, 0).result()) == 0
    assert float(Precision("precision", 0.5, 0.0, 0.0).result()) == 0
    assert float(AUC("auc", [0.0, 1.0], *[[0.0, 0.0]] * 4).result()) == 0


def test_a_result_reads_like_a_number() -> None:
    result = Mean("mean", 2.0, 3).result()
    assert f"{result:.3f}" == "0.667"
    assert isinstance(result.numpy(), np.float32)
    assert result > 0.6


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), min_size=1, max_size=6))
def test_parties_means_add_up_to_the_mean_of_all_rows(parts: list[tuple[float, int]]) -> None:
    [mean] = aggregate_metrics([[Mean("mean", total, count)] for total, count in parts])
    total, count = (sum(column) for column in zip(*parts, strict=True))
    assert float(mean.result()) == pytest.approx(total / count, rel=1e-6)


@given(st.lists(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), max_size=8), min_size=1, max_size=4))
def test_counts_of_parties_add_up_to_the_metrics_of_all_rows(parties: list[list[tuple[int, float]]]) -> None:
    thresholds = [-0.1, 0.25, 0.5, 0.75, 1.1]

    def metrics(rows: list[tuple[int, float]]) -> list[Metric]:
        truth, scores = np.array(rows).reshape(-1, 2).T
        count = counted(truth, scores, thresholds)
        return [
            Precision("precision", thresholds, count["true_positives"], count["false_positives"]),
            Recall("recall", thresholds, count["true_positives"], count["false_negatives"]),
            AUC("roc", thresholds, **count),
            AUC("pr", thresholds, **count, curve="PR"),
        ]

    expected = metrics([row for rows in parties for row in rows])
    for order in (parties, parties[::-1]):
        summed = aggregate_metrics([metrics(rows) for rows in order])
        for ours, whole in zip(summed, expected, strict=True):
            assert ours.result().numpy().tolist() == whole.result().numpy().tolist()


def test_a_party_with_fewer_metrics_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        aggregate_metrics([[Mean("a", 1, 1), Mean("b", 1, 1)], [Mean("a", 1, 1)]])


def test_counts_in_lists_are_added_and_not_joined() -> None:
    assert (Mean("mean", [3.0], [2.0]) + Mean("mean", [1.0], [2.0])).total == [4.0]
    both = AUC("auc", **COUNTS) + AUC("auc", **COUNTS)
    assert both.true_positives == [2 * count for count in COUNTS["true_positives"]]
    precision = Precision("precision", [0.5], [3.0], [1.0]) + Precision("precision", [0.5], [1.0], [3.0])
    assert float(precision.result()) == 0.5


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (Mean("a", 1, 1), Mean("b", 1, 1), "different name .* 'a' and 'b'"),
        (
            Recall("r", [0.5], [1.0], [1.0]),
            Recall("r", [0.6], [1.0], [1.0]),
            r"different thresholds .* \[0.5\] and \[0.6\]",
        ),
        (
            Mean("a", [1.0], [1]),
            Mean("a", [1.0, 2.0], [1, 1]),
            r"different shape .* \[1.0\] and \[1.0, 2.0\]",
        ),
        (AUC("auc", **COUNTS), AUC("auc", **COUNTS, curve="PR"), "different curve .* 'ROC' and 'PR'"),
    ],
)
def test_metrics_that_differ_are_not_added(one: Mean, other: Mean, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one + other


def test_metrics_of_two_kinds_are_not_added() -> None:
    with pytest.raises(TypeError, match="a Recall cannot be added to a Precision"):
        Precision("a", [0.5], [1.0], [1.0]) + Recall("a", [0.5], [1.0], [1.0])  # type: ignore[operator]


def test_counts_for_each_label_are_refused_rather_than_added_up() -> None:
    by_label = [[1.0, 1.0], [0.0, 0.0]]
    with pytest.raises(ValueError, match=r"counts of shape \(2, 2\) at 2 thresholds"):
        AUC("auc", [0.0, 1.0], *[by_label] * 4).result()


@pytest.mark.parametrize(
    "three",
    [
        3,
        [3.0],
        np.float32(3),
        np.array([3.0]),
        torch.tensor(3),
        torch.tensor([3.0]),
        torch.tensor(3.0, requires_grad=True),
        torch.tensor(3.0, dtype=torch.bfloat16),
    ],
)
def test_totals_may_be_numbers_lists_arrays_or_tensors(three: Any) -> None:
    twice = Precision("precision", [0.5], three, three) + Precision("precision", [0.5], three, three)
    assert twice.result().numpy() == 0.5
    assert isinstance(twice.result().numpy(), np.float32)
    assert sum([Mean("mean", three, three)] * 2).result().numpy() == 1  # type: ignore[attr-defined]


def test_a_list_is_added_to_a_tensor_by_its_elements() -> None:
    both = Precision("p", [0.5], torch.tensor([3.0]), [1.0]) + Precision("p", [0.5], [2.0], np.array([4.0]))
    assert (both.true_positives, both.false_positives) == ([5.0], [5.0])


def test_a_plain_mean_of_tensors_warns_that_it_is_one() -> None:
    parties = [Default("f1", torch.tensor(0.5), 1), Default("f1", torch.tensor(1.0), 1)]
    with pytest.warns(UserWarning, match="mean of the parties'"):
        assert sum(parties).result().numpy() == 0.75  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "metric",
    [
        AUC("auc", **COUNTS, curve="PR"),
        Mean("mean", 2.0, 3),
        Default("f1", torch.tensor(0.5), 1),
        Precision("precision", [0.5], [3.0], [1.0]),
        Recall("recall", [0.5], [3.0], [1.0]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*mean of the parties'")
def test_a_metric_travels_before_and_after_its_result_is_read(metric: Metric) -> None:
    before = pickle.loads(pickle.dumps(metric))
    value = metric.result()
    after = pickle.loads(pickle.dumps(metric))
    assert type(before) is type(metric)
    assert before.result() == after.result() == pickle.loads(pickle.dumps(value)) == value
