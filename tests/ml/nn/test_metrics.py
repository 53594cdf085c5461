"""Federated metrics give what keras gives, without TensorFlow."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from secretflow.ml.nn.metrics import AUC, Default, Mean, Precision, Recall, aggregate_metrics

# Counts of eight rows at six thresholds and the areas that keras 2.15.1 gives for them
# (tf.keras.metrics.AUC(num_thresholds=6, curve=...)).
COUNTS = {
    "thresholds": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    "true_positives": [4.0, 4.0, 3.0, 3.0, 1.0, 0.0],
    "true_negatives": [0.0, 2.0, 3.0, 4.0, 4.0, 4.0],
    "false_positives": [4.0, 2.0, 1.0, 0.0, 0.0, 0.0],
    "false_negatives": [0.0, 0.0, 1.0, 1.0, 3.0, 4.0],
}
KERAS_AREAS = {"ROC": 0.90625, "PR": 0.9256831407546997}


def test_importing_metrics_loads_neither_tensorflow_nor_torch() -> None:
    code = "import sys, secretflow.ml.nn.metrics; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"tensorflow", "torch", "ray"} & set(loaded.split())


@pytest.mark.parametrize("curve", ["ROC", "PR"])
def test_an_area_is_that_of_keras(curve: str) -> None:
    assert float(AUC("auc", **COUNTS, curve=curve).result()) == pytest.approx(KERAS_AREAS[curve], abs=1e-6)


def test_the_curve_is_roc_unless_told_and_may_be_a_member_of_keras_enumeration() -> None:
    assert float(AUC("auc", **COUNTS).result()) == pytest.approx(KERAS_AREAS["ROC"])
    member = SimpleNamespace(value="PR")
    assert float(AUC("auc", **COUNTS, curve=member).result()) == pytest.approx(KERAS_AREAS["PR"])
    with pytest.raises(ValueError, match="curve='DET' is not allowed"):
        AUC("auc", **COUNTS, curve="DET")


def test_with_many_thresholds_the_area_is_the_probability_of_the_right_order() -> None:
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 2, 400)
    score = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0.001, 0.999)
    thresholds = np.linspace(0, 1, 5001)
    above = score[None] > thresholds[:, None]
    counts = [
        (above == said)[:, truth == is_so].sum(axis=1) for said, is_so in ((1, 1), (0, 0), (1, 0), (0, 1))
    ]
    area = AUC("auc", list(thresholds), *map(list, counts)).result()
    assert float(area) == pytest.approx(roc_auc_score(truth, score), abs=2e-3)


def test_one_threshold_gives_a_number_and_several_an_array() -> None:
    one = Precision("precision", [0.5], [3.0], [1.0]).result().numpy()
    assert isinstance(one, np.float32)
    assert one == 0.75
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


def test_counts_in_lists_are_added_and_not_joined() -> None:
    both = AUC("auc", **COUNTS) + AUC("auc", **COUNTS)
    assert both.true_positives == [2 * count for count in COUNTS["true_positives"]]
    precision = Precision("precision", [0.5], [3.0], [1.0]) + Precision("precision", [0.5], [1.0], [3.0])
    assert float(precision.result()) == 0.5


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (Mean("a", 1, 1), Mean("b", 1, 1), "different name .* 'a' and 'b'"),
        (Recall("r", [0.5], [1.0], [1.0]), Recall("r", [0.6], [1.0], [1.0]), "different thresholds"),
        (AUC("auc", **COUNTS), AUC("auc", **COUNTS, curve="PR"), "different curve .* 'ROC' and 'PR'"),
    ],
)
def test_metrics_that_differ_in_kind_are_not_added(one: Mean, other: Mean, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one + other


def test_a_plain_mean_of_tensors_warns_that_it_is_one() -> None:
    parties = [Default("f1", torch.tensor(0.5), 1), Default("f1", torch.tensor(1.0), 1)]
    with pytest.warns(UserWarning, match="plain mean"):
        assert sum(parties).result().numpy() == 0.75  # type: ignore[attr-defined]


def test_a_metric_travels() -> None:
    metric = pickle.loads(pickle.dumps(AUC("auc", **COUNTS, curve="PR")))
    assert float(metric.result()) == pytest.approx(KERAS_AREAS["PR"])
