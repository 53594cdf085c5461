"""What ``fit`` tells: its history, its progress bar and its callbacks."""

from __future__ import annotations

from typing import Any

import pytest

from secretflow.ml.nn.callbacks import Callback, EarlyStoppingEpoch

from .conftest import Task
from .measures import BATCH


class TestHistory:
    def test_history_is_a_dictionary_that_reads_like_an_object(self, task: Task) -> None:
        history = task.make_model().fit(
            task.x, task.y, validation_data=(task.x, task.y), epochs=2, batch_size=BATCH, verbose=0
        )
        assert isinstance(history, dict)
        assert history.global_history is history["global_history"]
        for column in ("multiclassaccuracy", "val_multiclassaccuracy", "density", "payload_bytes"):
            assert len(history.global_history[column]) == 2

    def test_validation_is_recorded_only_in_the_epochs_that_have_it(self, task: Task) -> None:
        history = task.make_model().fit(
            task.x,
            task.y,
            validation_data=(task.x, task.y),
            validation_freq=2,
            epochs=3,
            batch_size=BATCH,
            verbose=0,
        )
        assert len(history.global_history["val_multiclassaccuracy"]) == 2
        assert len(history.global_history["multiclassaccuracy"]) == 3

    def test_verbose_0_is_silent_and_1_shows_a_bar(
        self, task: Task, capfd: pytest.CaptureFixture[str]
    ) -> None:
        model = task.make_model()
        model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)
        silent = capfd.readouterr()
        assert silent.out == ""
        assert "Epoch" not in silent.err
        model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=1)
        shown = capfd.readouterr().err
        assert "Epoch 1/1: 100%" in shown
        assert "density" in shown


class TestCallbacks:
    def test_callbacks_see_every_epoch_and_round(self, task: Task) -> None:
        seen: list[str] = []

        class Witness(Callback):
            def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
                seen.append(f"epoch {epoch}")

            def on_train_batch_end(self, batch: int) -> None:
                seen.append(f"batch {batch}")

        task.make_model().fit(
            task.x, task.y, epochs=2, batch_size=BATCH, aggregate_freq=2, callbacks=[Witness()], verbose=0
        )
        one_epoch = ["batch 0", "batch 2", "batch 4"]
        assert seen == [*one_epoch, "epoch 0", *one_epoch, "epoch 1"]

    def test_early_stopping_ends_the_training(self, task: Task) -> None:
        stop = EarlyStoppingEpoch(monitor="val_multiclassaccuracy", min_delta=2, patience=2)
        history = task.make_model().fit(
            task.x,
            task.y,
            validation_data=(task.x, task.y),
            epochs=9,
            batch_size=BATCH,
            callbacks=[stop],
            verbose=0,
        )
        assert len(history.global_history["density"]) < 9
