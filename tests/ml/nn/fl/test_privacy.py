"""Differential privacy: refused where its account would not hold, and right where it would."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from secretflow.ml.nn.fl.checks import check_privacy
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.security.privacy import DPStrategyFL, GaussianModelDP
from secretflow.utils.simulation.data.ndarray import create_ndarray

from .conftest import CLASSES, FEATURES, Task
from .measures import BATCH, DENSE, LIVING, PRUNABLE, STEPS, weights_of, zero_fractions

MULTIPLIER = 0.5


def noise(**options: int) -> DPStrategyFL:
    return DPStrategyFL(GaussianModelDP(noise_multiplier=MULTIPLIER, **{"num_clients": 2, **options}))


class TestPrivacy:
    def test_noise_is_refused_with_masks_of_the_parties_own(self, task: Task) -> None:
        """Where k of n parties keep a weight only k parts of the noise arrive."""
        model = task.make_model(dp_strategy=noise(), mask_scope="local")
        with pytest.raises(ValueError, match="mask_scope must be 'global' with dp_strategy's model_gdp"):
            model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)

    @pytest.mark.parametrize("options", [{"num_clients": 3}, {"num_clients": 2, "num_updates": 1}])
    def test_noise_split_over_another_number_of_parties_is_refused(
        self, task: Task, options: dict[str, int]
    ) -> None:
        model = task.make_model(dp_strategy=noise(**options), mask_scope="global")
        with pytest.raises(ValueError, match="of model_gdp must be 2, as many as train"):
            model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)

    def test_noise_for_layers_clipped_one_by_one_is_refused(self, task: Task) -> None:
        strategy = noise(is_clip_each_layer=True)
        clipped = [np.ones(4, np.float32), np.ones(4, np.float32)]
        strategy.model_gdp.noise_multiplier = 0.0
        strategy.model_gdp.is_secure_generator = True
        assert np.linalg.norm(strategy.model_gdp(clipped)) > 1.1 * strategy.model_gdp.l2_norm_clip
        model = task.make_model(dp_strategy=strategy, mask_scope="global")
        with pytest.raises(ValueError, match="is_clip_each_layer of model_gdp must be False"):
            model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)

    def test_noise_of_differential_privacy_stays_where_weights_live(self, task: Task) -> None:
        model = task.make_model(dp_strategy=noise(), mask_scope="global")
        quiet = task.make_model(mask_scope="global")
        quiet.fit(task.x, task.y, epochs=3, batch_size=BATCH, verbose=0, random_seed=5)
        history = model.fit(task.x, task.y, epochs=3, batch_size=BATCH, verbose=0, random_seed=5)
        for party, weights in weights_of(model).items():
            for noisy, plain in zip(weights, weights_of(quiet)[party], strict=True):
                assert not np.isclose(noisy, plain, atol=1e-3).all()
            assert zero_fractions(weights) == [
                1 - history.local_history[f"{party}_density.{layer}"][-1]
                for layer in ("hidden.weight", "out.weight")
            ]
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

    def test_the_noise_in_an_average_is_what_the_account_says_for_any_numbers_of_rows(
        self, task: Task, devices: SimpleNamespace
    ) -> None:
        """Clipped to a norm next to nothing, what is averaged is noise alone, so its spread can be seen.

        The sum of n uploads of norm at most C has noise of the multiplier times C, the average of equal parts
        n times less. By rows, one party would have a larger part than the noise is for.
        """
        clip, parties = 1e-2, [devices.alice, devices.bob]
        strategy = DPStrategyFL(GaussianModelDP(200.0, num_clients=2, l2_norm_clip=clip))
        ends = {parties[0]: (0, 8), parties[1]: (8, 64)}
        x, y = (
            create_ndarray(array, parts=ends, axis=0)
            for array in (np.ones((64, FEATURES), "f4"), np.eye(CLASSES)[np.arange(64) % CLASSES])
        )
        model = task.make_model(dp_strategy=strategy, mask_scope="global", prune_end_rate=1.0)
        np.random.seed(4)  # upstream draws the noise from it
        spread = []
        for _ in range(8):
            model.fit(x, y, epochs=1, batch_size={parties[0]: 8, parties[1]: 56}, verbose=0)
            spread.append(np.concatenate([array.ravel() for array in weights_of(model)["alice"]]))
        assert np.std(spread) == pytest.approx(200.0 * clip / 2, rel=0.1)

    @pytest.mark.parametrize("multiplier", [0.5, 1.0, 4.0])
    @pytest.mark.parametrize("rounds", [1, 20, 500])
    def test_the_account_is_that_of_dp_accounting(self, multiplier: float, rounds: int) -> None:
        gaussian = GaussianModelDP(noise_multiplier=multiplier, num_clients=10)
        spent = DPStrategyFL(gaussian).get_privacy_spent(rounds)
        event = SelfComposedDpEvent(GaussianDpEvent(multiplier), rounds)
        orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
        renyi = RdpAccountant(orders).compose(event).get_epsilon(spent["model_delta"])
        assert spent["model_eps"] == pytest.approx(renyi, rel=1e-6)
        tight = (
            PLDAccountant(value_discretization_interval=1e-3).compose(event).get_epsilon(spent["model_delta"])
        )
        assert spent["model_eps"] >= tight

    @pytest.mark.parametrize(("parties", "min_survivors"), [(3, 2), (10, 6), (31, 16)])
    def test_the_account_holds_for_whoever_survives(self, parties: int, min_survivors: int) -> None:
        """Each round may have other survivors; any set of them has the noise of the account or more."""
        rounds, rng = 60, np.random.default_rng(0)
        gaussian = GaussianModelDP(noise_multiplier=MULTIPLIER, num_clients=min_survivors)
        check_privacy(
            DPStrategyFL(gaussian), PruneSettings(mask_scope="global"), parties, min_survivors=min_survivors
        )
        part = gaussian.noise_multiplier / np.sqrt(gaussian.num_updates)
        spent = DPStrategyFL(gaussian).get_privacy_spent(rounds)
        schedules = [
            np.full(rounds, min_survivors),
            np.full(rounds, parties),
            rng.integers(min_survivors, parties + 1, rounds),
        ]
        epsilons = []
        for there in schedules:
            accountant = RdpAccountant([1 + x / 10 for x in range(1, 100)] + list(range(12, 64)))
            for count in there:
                accountant.compose(GaussianDpEvent(part * np.sqrt(count)))
            epsilons.append(accountant.get_epsilon(spent["model_delta"]))
        assert spent["model_eps"] == pytest.approx(epsilons[0], rel=1e-6)
        assert epsilons[0] >= epsilons[2] >= epsilons[1]

    @pytest.mark.parametrize("options", [{"num_clients": 4}, {"num_clients": 4, "num_updates": 3}])
    def test_noise_that_counts_on_more_parties_than_must_survive_is_refused(
        self, options: dict[str, int]
    ) -> None:
        """Nor may the account take survivors for a random sample of the parties."""
        with pytest.raises(ValueError, match="of model_gdp must be 3, min_survivors, for an average"):
            check_privacy(noise(**options), PruneSettings(mask_scope="global"), 4, min_survivors=3)

    def test_pruning_changes_no_account_of_privacy(
        self, task: Task, caplog: pytest.LogCaptureFixture
    ) -> None:
        strategy, rounds = noise(), range(1, 2 * STEPS + 1)
        with caplog.at_level("DEBUG"):
            task.make_model(dp_strategy=strategy, mask_scope="global", prune_freq=2).fit(
                task.x, task.y, epochs=2, batch_size=BATCH, dp_spent_step_freq=1, verbose=0
            )
        spent = [record.args for record in caplog.records if "privacy spent" in record.msg]
        assert spent == [strategy.get_privacy_spent(number) for number in rounds]

    def test_the_privacy_spent_is_logged_as_often_as_asked_for(
        self, task: Task, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked: list[int] = []
        asked_for = SimpleNamespace(model_gdp=None, get_privacy_spent=lambda rounds: asked.append(rounds))
        with caplog.at_level("DEBUG"):
            task.make_model(dp_strategy=asked_for).fit(
                task.x, task.y, epochs=2, batch_size=BATCH, dp_spent_step_freq=3, verbose=0
            )
        assert asked == [3, 6, 9]
        assert caplog.text.count("privacy spent") == 3
