"""Local objectives: what a party minimises in a round, beside the same written out in plain torch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

import secretflow as sf
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.ml.nn.fl.worker.trainer import LocalObjective
from secretflow.security.aggregation import PlainAggregator
from tests.ml.nn.fl.conftest import Mlp, model_def

MU, LR, BATCH, EPOCHS = 2.0, 0.1, 20, 3


def trained_with_a_proximal_term(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """FedProx of parties with the same rows and one round of two steps an epoch: each average is the net."""
    optimizer = optim.SGD(net.parameters(), lr=LR)
    for _ in range(EPOCHS):
        start = [parameter.detach().clone() for parameter in net.parameters()]
        for rows in (slice(0, BATCH), slice(BATCH, 2 * BATCH)):
            distance = sum(((p - s) ** 2).sum() for p, s in zip(net.parameters(), start, strict=True))
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows]) + MU / 2 * distance
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


@pytest.mark.parametrize("options", [{"mu": MU}, {"mu": MU, "local_objective": "prox"}])
def test_the_proximal_term_is_fedproxs(task: Any, options: dict[str, Any]) -> None:
    model = task.make_model(optimizer=optim_wrapper(optim.SGD, lr=LR), prune_end_rate=1, **options)
    alice, _ = model._workers
    x, y = (torch.tensor(sf.reveal(data.partitions[alice])).float() for data in (task.x, task.y))
    net = Mlp()
    initial = map(torch.tensor, sf.reveal(model._workers[alice].get_weights()))
    net.load_state_dict(dict(zip(net.state_dict(), initial, strict=True)))
    model.fit(task.x, task.y, epochs=EPOCHS, batch_size=BATCH, aggregate_freq=2, verbose=0, random_seed=1)
    expected = trained_with_a_proximal_term(net, x, y)
    for own, value in zip(
        sf.reveal(model._workers[alice].get_weights()), expected.state_dict().values(), strict=True
    ):
        np.testing.assert_allclose(own, value.numpy(), atol=2e-5)


def test_the_proximal_term_goes_with_pruning_and_holds_a_party_near_the_average(task: Any) -> None:
    moved = []
    for mu in (0.0, 50.0):
        model = task.make_model(optimizer=optim_wrapper(optim.SGD, lr=0.01), mu=mu)
        before = [sf.reveal(worker.get_weights()) for worker in model._workers.values()]
        history = model.fit(
            task.x, task.y, epochs=2, batch_size=4, aggregate_freq=10, verbose=0, random_seed=1
        )
        assert history.global_history["density"] == pytest.approx([0.6, 0.36], abs=0.02)
        after = [sf.reveal(worker.get_weights()) for worker in model._workers.values()]
        moved.append(sum(np.abs(a[1] - b[1]).sum() for a, b in zip(after, before, strict=True)))
    assert moved[1] < 0.6 * moved[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mu": "much"}, TypeError, "mu must be a number, got 'much'"),
        ({"mu": -1.0}, ValueError, "mu must be above 0"),
        ({"local_objective": "prox"}, ValueError, "mu must be above 0 with local_objective='prox', got 0.0"),
        ({"local_objective": "plain", "mu": 1.0}, ValueError, "mu must be 0 without"),
        ({"local_objective": "proximal", "mu": 1.0}, ValueError, r"must be one of \['plain', 'prox'\]"),
    ],
)
def test_an_objective_that_is_none_is_refused(
    task: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        task.make_model(**options)


def test_an_objective_is_a_value() -> None:
    assert LocalObjective.chosen(None, 0.5) == LocalObjective("prox", 0.5)
    assert LocalObjective.chosen(None, 0.0) == LocalObjective() == LocalObjective("plain", 0.0)


@pytest.mark.parametrize(
    ("keyword", "meant"),
    [
        ("prune_rate", "prune_"),
        ("prune_endrate", "prune_end_rate"),
        ("prune_pct", "prune_percent"),
        ("nun_gpus", "num_gpus"),
    ],
)
def test_a_misspelt_keyword_is_an_error_that_suggests_the_right_one(
    task: Any, keyword: str, meant: str
) -> None:
    with pytest.raises(TypeError, match=rf"no argument {keyword} .*did you mean {meant}"):
        task.make_model(**{keyword: 0.1})


@pytest.mark.parametrize(
    ("strategy", "keyword", "meant"),
    [
        ("fed_avg_w", "nun_gpus", "num_gpus"),
        ("fed_prox", "mue", "mu"),
        ("fed_stc", "sparcity", "sparsity"),
        ("fed_avg_w", "prune_rate", "prune_"),
    ],
)
def test_a_misspelt_keyword_of_upstreams_strategies_is_an_error_too(
    task: Any, devices: SimpleNamespace, strategy: str, keyword: str, meant: str
) -> None:
    with pytest.raises(TypeError, match=rf"no argument {keyword} with '{strategy}'.*did you mean {meant}"):
        FLModel(
            server=devices.carol,
            device_list=[devices.alice, devices.bob],
            model=model_def(),
            aggregator=PlainAggregator(devices.carol),
            strategy=strategy,
            backend="torch",
            **{keyword: 0.1},
        )


def test_upstreams_strategies_take_each_others_keywords_as_in_its_own_tests(
    devices: SimpleNamespace,
) -> None:
    FLModel(
        server=devices.carol,
        device_list=[devices.alice, devices.bob],
        model=model_def(),
        aggregator=PlainAggregator(devices.carol),
        strategy="fed_avg_w",
        backend="torch",
        sparsity=0.0,
        mu=0.0,
    )


def test_a_misspelt_keyword_of_fit_is_an_error_that_suggests_the_right_one(task: Any) -> None:
    with pytest.raises(TypeError, match=r"^fit has no argument epoch, got 5; did you mean epochs\?"):
        task.make_model().fit(task.x, task.y, epoch=5)


@pytest.mark.parametrize(
    "misspelt, meant", [("is_tests", "is_test"), ("force_participate", "force_all_participate")]
)
def test_a_misspelt_keyword_of_load_model_is_an_error_that_suggests_the_right_one(
    task: Any, misspelt: str, meant: str
) -> None:
    with pytest.raises(TypeError, match=rf"^load_model has no argument {misspelt}.*; did you mean {meant}\?"):
        task.make_model().load_model("run/model", **{misspelt: True})
