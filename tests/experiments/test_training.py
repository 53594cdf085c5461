"""The main job's training."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.data import Images
from experiments.settings import Settings
from experiments.training import EpochRecorder, Parties, secure_aggregator, share_out_all, train_pruned

EPOCHS, ROWS, BATCH = 2, 50, 2
ROUNDS = int(0.4 * ROWS) // BATCH


def test_its_rounds_go_many_to_a_run_although_its_recorder_counts_them(
    ray_devices: SimpleNamespace, away: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "on_train_batch_end" in vars(EpochRecorder)
    # So many rounds go to a run as take a minute: all of an epoch, however slow the machine is.
    monkeypatch.setattr("secretflow.security.aggregation.secagg.transport.local._SECONDS_AT_ONCE", 60.0)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (ROWS, 28, 28), dtype=np.uint8)
    labels = np.arange(ROWS, dtype=np.uint8) % 10
    parties = Parties(ray_devices.alice, ray_devices.bob, ray_devices.carol)
    settings = Settings(plain=False, pruned=True, epochs=EPOCHS, batch_size=BATCH)
    data = share_out_all(Images(pixels, labels, pixels, labels), parties)
    epochs = train_pruned(settings, parties, data, lambda _: None, secure_aggregator(parties))
    assert [epoch["epoch"] for epoch in epochs] == [1, 2] and epochs[-1]["density"] < 1
    # A run for the start, one for the first round, which tells how long one takes, and one for the others.
    # In the last round of an epoch masks are agreed on as well.
    assert away == [6, 1, ROUNDS, ROUNDS + 1]
