"""Callbacks that do not ask to see the model between two rounds leave the rounds of an epoch in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from secretflow.ml.nn.callbacks import Callback, EarlyStoppingBatch, EarlyStoppingEpoch
from secretflow.ml.nn.fl.callbacks import Checkpoint, TensorBoard
from secretflow.ml.nn.fl.plan import Round
from secretflow.ml.nn.fl.session import FitSession

from .conftest import Task
from .measures import BATCH, STEPS


def early_stopping_batch() -> EarlyStoppingBatch:
    callback = EarlyStoppingBatch(check_step=1, monitor="val_multiclassaccuracy", patience=99)
    callback.val_metrics = {}  # which upstream has from the first validation on, after rounds that want it
    return callback


@pytest.mark.parametrize(
    "make_callback",
    [
        lambda folder: EarlyStoppingEpoch(monitor="val_multiclassaccuracy", patience=9),
        lambda folder: early_stopping_batch(),
        lambda folder: Checkpoint(f"{folder}/model", is_test=True),
        lambda folder: TensorBoard(f"{folder}/curves"),
    ],
    ids=["EarlyStoppingEpoch", "EarlyStoppingBatch", "Checkpoint", "TensorBoard"],
)
def test_a_callback_keeps_the_rounds_of_an_epoch_together(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_callback: Callable[[Path], Callback]
) -> None:
    together: list[int] = []
    train = FitSession._train

    def counted(session: FitSession, rounds: Sequence[Round]) -> None:
        together.append(len(rounds))
        train(session, rounds)

    monkeypatch.setattr(FitSession, "_train", counted)
    task.make_model().fit(
        task.x,
        task.y,
        validation_data=(task.x, task.y),
        epochs=2,
        batch_size=BATCH,
        callbacks=[make_callback(tmp_path)],
        verbose=0,
    )
    assert together == [STEPS, STEPS]
