"""What ``fit`` tells: its history, its progress bar and its callbacks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from secretflow.ml.nn.callbacks import Callback, EarlyStoppingEpoch

from .conftest import Mlp, Task
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

    @pytest.mark.parametrize("wait_steps", [1, 4, 100])
    def test_callbacks_hear_of_every_round_that_ended_before_one_fails(
        self, task: Task, wait_steps: int
    ) -> None:
        heard: list[tuple[str, int]] = []

        class Witness(Callback):
            def on_train_batch_begin(self, batch: int) -> None:
                heard.append(("begin", batch))

            def on_train_batch_end(self, batch: int) -> None:
                heard.append(("end", batch))

        class FailsAtLast(Mlp):
            left = 2 * 13 + 2  # the other party has its turn first

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                FailsAtLast.left -= self.training
                if not FailsAtLast.left:
                    raise RuntimeError("this step fails")
                return super().forward(x)

        model = task.make_model(net=FailsAtLast)
        with pytest.raises(RuntimeError, match="this step fails"):
            model.fit(
                *(task.x, task.y),
                batch_size=2,
                epochs=2,
                callbacks=[Witness()],
                wait_steps=wait_steps,
                verbose=0,
            )
        told = [(kind, batch) for batch in range(13) for kind in ("begin", "end")]
        assert heard[: len(told)] == told
        assert heard[len(told) :] in ([], [("begin", 13)])

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
