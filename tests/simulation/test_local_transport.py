"""Rounds over channels from party to server: the same training, and callbacks that keep it there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import secretflow as sf
import secretflow.distributed as sfd
from secretflow.distributed.primitive import DISTRIBUTION_MODE
from secretflow.ml.nn.callbacks.callback import Callback

from .training import BATCH, ROUNDS, fitted, make_data, make_model


@pytest.mark.parametrize(
    ("options", "agreements"),
    [
        ({}, 3),
        ({"prune_freq": 4, "regrow_percent": 20}, 12),  # regrowth goes on at the end rate
        ({"prune_freq": 1, "prune_percent": 10}, 14),
        ({"mask_scope": "global", "prune_freq": 4}, 0),
        ({"withhold_percent": 10}, 3),
    ],
    ids=[
        "local masks",
        "pruned and regrown within epochs",
        "pruned every round",
        "one mask, pruned within epochs",
        "with updates withheld",
    ],
)
def test_training_is_the_same_to_the_last_bit(
    ray_devices: SimpleNamespace, away: list[int], options: dict[str, Any], agreements: int
) -> None:
    _, history, weights = fitted(ray_devices, **options)
    # Before the first round: what all have in common, the total of sample counts and who counts, masks of the
    # parties' own, whether weights are alike, and that all go on with them.
    start = 5 if options.get("mask_scope") == "global" else 6
    assert sum(away) == start + 3 * ROUNDS + agreements
    away.clear()
    sfd.set_distribution_mode(DISTRIBUTION_MODE.DEBUG)
    _, expected, expected_weights = fitted(ray_devices, **options)
    assert not away
    for own, alone in zip(weights, expected_weights, strict=True):
        for array, same in zip(own, alone, strict=True):
            np.testing.assert_array_equal(array, same)
    for column in ("multiclassaccuracy", "density", "payload_bytes"):
        assert history.global_history[column] == expected.global_history[column]
    for party in ("alice", "bob"):
        column = f"{party}_round_payload_bytes"
        assert [len(sizes) for sizes in history.local_history[column]] == [ROUNDS] * 3
        assert history.local_history[column] == expected.local_history[column]


class Calls(Callback):
    """Notes which rounds it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int]] = []

    def on_train_batch_begin(self, batch: int) -> None:
        self.told.append(("begin", batch))

    def on_train_batch_end(self, batch: int) -> None:
        self.told.append(("end", batch))


def test_a_callback_for_every_round_keeps_the_rounds_together(
    ray_devices: SimpleNamespace, away: list[int]
) -> None:
    calls = Calls()
    model = make_model(ray_devices)
    model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=2, verbose=0, callbacks=[calls])
    assert calls.told == 2 * [(what, step) for step in range(ROUNDS) for what in ("begin", "end")]
    assert max(away) > 1 and len(away) < ROUNDS


def test_a_callback_that_needs_the_model_sees_each_round_when_it_is_over(
    ray_devices: SimpleNamespace,
) -> None:
    class Watch(Callback):
        needs_model_each_round = True

        def __init__(self) -> None:
            super().__init__()
            self.steps: list[int] = []
            self.weights: list[np.ndarray] = []

        def on_train_batch_end(self, batch: int) -> None:
            self.steps.append(batch)
            self.weights.append(sf.reveal(self._workers[ray_devices.alice].get_weights())[0])

    watch = Watch()
    model = make_model(ray_devices)
    model.fit(**make_data(ray_devices), batch_size=BATCH, epochs=1, verbose=0, callbacks=[watch])
    assert watch.steps == list(range(ROUNDS))
    assert all((a != b).any() for a, b in zip(watch.weights, watch.weights[1:], strict=False))
