"""The history's seconds and metrics are those of training."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks.callback import Callback

from .conftest import BATCH


def test_the_history_tells_the_seconds_of_work(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    history = make_model().fit(*data, validation_data=data, epochs=2, batch_size=BATCH, verbose=0)
    for epoch in range(2):
        parts = [
            history.global_history[f"{name}_seconds"][epoch] for name in ("train", "aggregate", "evaluate")
        ]
        # In one process everything happens one after the other, at each of two parties.
        whole = history.global_history["seconds"][epoch]
        assert min(parts) > 0 and 2 * (parts[0] + parts[1]) + parts[2] < whole
        local = [history.local_history[f"{party}_train_seconds"][epoch] for party in ("alice", "bob")]
        assert history.global_history["train_seconds"][epoch] == pytest.approx(sum(local) / 2)


def test_what_a_callback_evaluates_after_the_last_round_is_no_metric_of_training(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    class Evaluates(Callback):
        def on_train_batch_end(self, batch: int) -> None:
            if batch == 2:
                models[0].evaluate(*data, batch_size=BATCH)

    models = [make_model(), make_model()]
    histories = [
        model.fit(*data, epochs=2, batch_size=BATCH, verbose=0, random_seed=3, callbacks=callbacks)
        for model, callbacks in zip(models, ([Evaluates()], None), strict=True)
    ]
    watched, alone = (history.global_history["multiclassaccuracy"] for history in histories)
    assert watched == alone
