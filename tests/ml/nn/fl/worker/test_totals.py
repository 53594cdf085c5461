"""Metrics over all parties' rows, from sums of which nobody is told a part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import classification as tc
from torchmetrics import regression as tr

from secretflow.ml.nn.fl.backend.torch.local_metrics import local_metric
from secretflow.ml.nn.fl.worker.totals import PartyTotals, total
from secretflow.ml.nn.metrics import Mean, Metric
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.errors import AggregationError, DisagreementError
from secretflow.security.aggregation.secagg.integers import LIMBS
from secretflow.security.aggregation.secagg.keyring import agree_all
from secretflow.security.aggregation.secagg.message import Message
from secretflow.security.aggregation.secagg.protocol import add_up_numbers
from secretflow.security.aggregation.secagg.ring import Ring
from secretflow.security.aggregation.secagg.rules import Rules

from .....security.aggregation.lockstep import together

NAMES = ["alice", "bob", "carol"]
ROWS = [7, 40, 19]


def clients(server_blind: bool = False) -> list[Client]:
    rules = Rules(Ring.make(32, None, len(NAMES)), 2, server_blind=server_blind)
    made = [Client(name, NAMES, rules) for name in NAMES]
    agree_all([client.keys for client in made])
    for client in made:
        client.number_calls(1)
        client.transcript.begin()
    return made


def totals(owns: Sequence[Sequence[Metric | None]], sums: list[Message] | None = None) -> list[Metric | None]:
    made = clients()
    results = together([total(client, own) for client, own in zip(made, owns, strict=True)], sums)
    for other in results[1:]:
        assert [repr(metric) for metric in other] == [repr(metric) for metric in results[0]]
    return results[0]


def parts() -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(3)
    scores, labels = torch.randn(sum(ROWS), 4), torch.randint(4, (sum(ROWS),))
    return list(zip(scores.split(ROWS), labels.split(ROWS), strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: tc.MulticlassAccuracy(num_classes=4),
        lambda: tc.MulticlassF1Score(num_classes=4),
        lambda: tc.MulticlassAUROC(num_classes=4, thresholds=20),
        lambda: tc.MulticlassConfusionMatrix(num_classes=4),
    ],
)
def test_a_metric_whose_states_add_up_is_that_of_all_rows(make) -> None:
    everybodys, owns = make(), []
    for party, (scores, labels) in zip(NAMES, parts(), strict=True):
        own = make()
        own.update(scores, labels)
        everybodys.update(scores, labels)
        owns.append([local_metric(own, "m", party, len(labels))])
    [metric] = totals(owns)
    assert metric is not None
    np.testing.assert_allclose(metric.result(), everybodys.compute().numpy(), rtol=1e-6)


def test_a_loss_is_the_mean_over_all_rows() -> None:
    losses = [0.25, 3.0, 1e-7]
    [loss] = totals([[Mean("loss", loss * rows, rows)] for loss, rows in zip(losses, ROWS, strict=True)])
    assert isinstance(loss, Mean)
    assert loss.total / loss.count == pytest.approx(np.average(losses, weights=ROWS), rel=1e-12)


def test_what_does_not_add_up_and_what_a_party_has_not_has_no_total() -> None:
    owns: list[list[Metric | None]] = []
    for k, (party, (scores, labels)) in enumerate(zip(NAMES, parts(), strict=True)):
        ranks, largest = tc.MulticlassAUROC(num_classes=4), tr.NormalizedRootMeanSquaredError("range")
        ranks.update(scores, labels)
        largest.update(scores[:, 0], labels.float())  # goes by the largest and the smallest number
        settings = tc.BinaryAccuracy(threshold=0.4 + 0.1 * (k == 2))
        settings.update(scores[:, 0], labels > 1)
        owns.append(
            [
                local_metric(ranks, "ranks", party, len(labels)),
                local_metric(largest, "largest", party, len(labels)),
                local_metric(settings, "settings", party, len(labels)),
                None if k == 1 else Mean("loss", 1.0, 1),
                Mean("density", 0.5, 1),
            ]
        )
    *none, density = totals(owns)
    assert none == [None] * 4
    assert density is not None and float(density) == 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**53])
def test_a_number_that_cannot_be_added_at_one_party_leaves_the_others_unopened(bad: float) -> None:
    sums: list[Message] = []
    mine = [123.4375, 77.25, bad]
    loss, other = totals([[Mean("loss", number, 1), Mean("other", 1.0, 1)] for number in mine], sums)
    assert loss is None
    assert other is not None and float(other) == 1.0
    assert sums[1]["body"][0].size == 2 * 2 * LIMBS  # total and count of the other, wholes and fractions


def test_a_party_without_rows_leaves_the_others_unopened() -> None:
    assert totals([[Mean("loss", 2.0 * (k < 2), int(k < 2))] for k in range(3)]) == [None]


def test_a_fit_does_not_go_on_after_sums_that_parties_were_told_differently() -> None:
    made = clients()
    made[0].transcript.mix(b"what another party was not told")
    worker = PartyTotals()
    worker._client, worker._rounds = made[0], "of a fit that runs"
    own = [Mean("loss", 1.0, 1)]
    with pytest.raises(DisagreementError):
        together([worker._total(own), *(total(client, own) for client in made[1:])])
    assert worker._rounds is None


def test_numbers_that_cannot_be_added_are_not_uploaded() -> None:
    with pytest.raises(AggregationError, match="must be finite"):
        next(add_up_numbers(clients()[0], np.array([1.0, np.nan])))


@settings(max_examples=50)
@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), max_size=5))
def test_real_numbers_add_up_to_within_2_to_the_minus_53_of_each(columns: list[list[float]]) -> None:
    numbers = np.array(columns, np.float64).reshape(len(columns), 3).T.copy()
    made = clients()
    results = together([add_up_numbers(client, own) for client, own in zip(made, numbers, strict=True)])
    for result in results:
        np.testing.assert_allclose(result, numbers.sum(0), rtol=1e-15, atol=3 * 2.0**-53 + 1e-9)


def test_a_server_sees_sums_alone_and_a_blind_one_not_even_those() -> None:
    for server_blind in (False, True):
        made = clients(server_blind)
        sums: list[Message] = []
        together([total(client, [Mean("loss", 2.0, 1)]) for client in made], sums)
        whole = int(sums[1]["body"][0][0])  # of 2 and 1, in limbs of 16 bits
        assert (whole == 6) is not server_blind
