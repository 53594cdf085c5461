"""Upstream's strategies train as they do at upstream."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from secretflow._overlay import upstream
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.fl.history import History
from secretflow.security.aggregation import PlainAggregator, SecureAggregator

from .conftest import Task, model_def
from .measures import BATCH, weights_of


@pytest.mark.parametrize(
    ("strategy", "make_aggregator"),
    [
        ("fed_avg_w", lambda server, parties: PlainAggregator(server)),
        ("fed_avg_w", lambda server, parties: SecureAggregator(server, parties)),
        ("fed_prox", lambda server, parties: PlainAggregator(server)),
        ("fed_avg_g", lambda server, parties: PlainAggregator(server)),
    ],
    ids=["fed_avg_w-plain", "fed_avg_w-secure", "fed_prox-plain", "fed_avg_g-plain"],
)
def test_upstreams_strategies_train_as_they_do_there(
    task: Task, devices: SimpleNamespace, strategy: str, make_aggregator: Callable[..., Any]
) -> None:
    parties, results = [devices.alice, devices.bob], []
    for cls in (FLModel, upstream("secretflow.ml.nn.fl.fl_model").FLModel):
        model = cls(
            server=devices.carol,
            device_list=parties,
            model=model_def(),
            aggregator=make_aggregator(devices.carol, parties),
            strategy=strategy,
            backend="torch",
            random_seed=3,
        )
        history = model.fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0, random_seed=5)
        results.append((history, weights_of(model)["alice"]))
    (ours, our_weights), (theirs, their_weights) = results
    assert isinstance(ours, History)
    assert ours.global_history == theirs["global_history"]
    assert all(np.array_equal(a, b) for a, b in zip(our_weights, their_weights, strict=True))
