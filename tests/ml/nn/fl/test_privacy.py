"""Differential privacy: noise goes where weights live, and pruning changes no account."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from secretflow.security.privacy import DPStrategyFL, GaussianModelDP

from .conftest import Task
from .measures import BATCH, DENSE, LIVING, PRUNABLE, STEPS, weights_of, zero_fractions


class TestPrivacy:
    @pytest.mark.parametrize("mask_scope", ["local", "global"])
    def test_noise_of_differential_privacy_stays_where_weights_live(
        self, task: Task, mask_scope: str
    ) -> None:
        noise = DPStrategyFL(GaussianModelDP(noise_multiplier=0.5, num_clients=2))
        model = task.make_model(dp_strategy=noise, mask_scope=mask_scope)
        quiet = task.make_model(mask_scope=mask_scope)
        quiet.fit(task.x, task.y, epochs=3, batch_size=BATCH, verbose=0, random_seed=5)
        history = model.fit(task.x, task.y, epochs=3, batch_size=BATCH, verbose=0, random_seed=5)
        for party, weights in weights_of(model).items():
            for noisy, plain in zip(weights, weights_of(quiet)[party], strict=True):
                assert not np.isclose(noisy, plain, atol=1e-3).all()
            assert zero_fractions(weights) == [
                1 - history.local_history[f"{party}_density.{layer}"][-1]
                for layer in ("hidden.weight", "out.weight")
            ]
        if mask_scope == "global":
            alice, bob = weights_of(model).values()
            for one, other in zip(alice, bob, strict=True):
                np.testing.assert_array_equal(one, other)
            # What is uploaded, noise and all, is what lives.
            living = [PRUNABLE, *LIVING[:2]]
            for party in ("alice", "bob"):
                for count, sizes in zip(
                    living, history.local_history[f"{party}_round_payload_bytes"], strict=True
                ):
                    assert sizes == [4 * (count + DENSE)] * STEPS

    @pytest.mark.parametrize("mask_scope", ["local", "global"])
    def test_pruning_changes_no_account_of_privacy(
        self, task: Task, caplog: pytest.LogCaptureFixture, mask_scope: str
    ) -> None:
        noise = DPStrategyFL(GaussianModelDP(noise_multiplier=0.5, num_clients=2))
        rounds = range(1, 2 * STEPS + 1)
        with caplog.at_level("DEBUG"):
            task.make_model(dp_strategy=noise, mask_scope=mask_scope, prune_freq=2).fit(
                task.x, task.y, epochs=2, batch_size=BATCH, dp_spent_step_freq=1, verbose=0
            )
        spent = [record.args for record in caplog.records if "privacy spent" in record.msg]
        assert spent == [noise.get_privacy_spent(number) for number in rounds]

    def test_the_privacy_spent_is_logged_as_often_as_asked_for(
        self, task: Task, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked: list[int] = []
        noise = SimpleNamespace(model_gdp=None, get_privacy_spent=lambda rounds: asked.append(rounds))
        with caplog.at_level("DEBUG"):
            task.make_model(dp_strategy=noise).fit(
                task.x, task.y, epochs=2, batch_size=BATCH, dp_spent_step_freq=3, verbose=0
            )
        assert asked == [3, 6, 9]
        assert caplog.text.count("privacy spent") == 3
