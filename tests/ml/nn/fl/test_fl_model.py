"""FLModel with pruning: what ``fit`` promises, in one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

import secretflow as sf
from secretflow._overlay import upstream
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks import Callback, EarlyStoppingEpoch
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.ml.nn.fl import GradientCapture
from secretflow.ml.nn.fl.audit import load_capture
from secretflow.ml.nn.fl.history import History
from secretflow.security.aggregation import PlainAggregator, SecureAggregator, SecurePruneAggregator
from secretflow.security.privacy import DPStrategyFL, GaussianModelDP

from .conftest import CLASSES, FEATURES, ROWS_EACH, Mlp, Task, model_def

PRUNABLE = FEATURES * 6 + 6 * CLASSES
DENSE = 6 + CLASSES
BATCH = 8
STEPS = ROWS_EACH // BATCH
# Of 48 and 18 weights 40 percent, rounded down, go in each step, until 0.3 of all 66 live.
LIVING = (29 + 11, 18 + 7, 19, 19)


def _weights(model: FLModel) -> dict[str, list[np.ndarray]]:
    return {party.party: sf.reveal(worker.get_weights()) for party, worker in model._workers.items()}


def _zero_fractions(weights: list[np.ndarray]) -> list[float]:
    return [1 - np.count_nonzero(array) / array.size for array in weights if array.ndim >= 2]


class NormedMlp(nn.Module):
    """An MLP with float and integer statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, 6)
        self.norm = nn.BatchNorm1d(6)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.norm(self.hidden(x))))


class TiedMlp(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, FEATURES)
        self.second = nn.Linear(FEATURES, FEATURES)
        self.second.weight = self.first.weight
        self.out = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.second(torch.relu(self.first(x)))))


class NothingToPrune(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)[:, :CLASSES]


class WithSwitch(Mlp):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("switch", torch.ones(3, dtype=torch.bool))


class TestTraining:
    def test_zeros_of_saved_and_evaluated_layers_are_the_reported_rates(
        self, task: Task, tmp_path: Path
    ) -> None:
        model = task.make_model()
        history = model.fit(
            task.x, task.y, validation_data=(task.x, task.y), epochs=3, batch_size=BATCH, verbose=0
        )
        model.save_model(f"{tmp_path}/model", is_test=True)
        for party, weights in _weights(model).items():
            reported = [
                history.local_history[f"{party}_living_rate.{layer}"][-1]
                for layer in ("hidden.weight", "out.weight")
            ]
            assert _zero_fractions(weights) == [1 - rate for rate in reported]
            saved = torch.load(tmp_path / party / "model")["model_state_dict"]
            for layer, rate in zip(("hidden.weight", "out.weight"), reported, strict=True):
                assert (saved[layer] != 0).sum().item() == rate * saved[layer].numel()
        assert history.global_history["living_rate"][-1] < 0.31

    def test_the_living_rate_follows_the_schedule_and_lands_on_the_end_rate(self, task: Task) -> None:
        history = task.make_model().fit(task.x, task.y, epochs=4, batch_size=BATCH, verbose=0)
        assert history.global_history["living_rate"] == [living / PRUNABLE for living in LIVING]

    @pytest.mark.parametrize("aggregate_freq", [1, 2, 3, STEPS, 100])
    def test_an_epoch_ends_with_pruning_whatever_the_aggregation_frequency(
        self, task: Task, aggregate_freq: int
    ) -> None:
        history = task.make_model().fit(
            task.x, task.y, epochs=2, batch_size=BATCH, aggregate_freq=aggregate_freq, verbose=0
        )
        assert history.global_history["living_rate"] == [living / PRUNABLE for living in LIVING[:2]]

    @pytest.mark.parametrize("regrow_percent", [0, 10])
    def test_masks_that_shrink_are_agreed_on_where_something_travels(
        self, task: Task, regrow_percent: float
    ) -> None:
        model = task.make_model(regrow_percent=regrow_percent)
        histories = [model.fit(task.x, task.y, epochs=k, batch_size=BATCH, verbose=0) for k in (2, 1)]
        before = PRUNABLE
        rounds = [epoch for h in histories for epoch in h.local_history["alice_round_payload_bytes"]]
        for (*_, last), living in zip(rounds, LIVING[:3], strict=True):
            # Equal rows and seeds: both parties have the same mask. A mask that regrows may be anywhere.
            assert last == (PRUNABLE if regrow_percent else before) + 4 * (living + DENSE)
            before = living

    def test_the_round_that_prunes_uploads_the_pruned_weights(self, task: Task) -> None:
        # Equal rows and seeds: both parties have the same mask, so the support has the living size.
        history = task.make_model().fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)
        living = round(history.global_history["living_rate"][0] * PRUNABLE)
        dense_rounds, mask, last = (STEPS - 1) * 4 * (PRUNABLE + DENSE), PRUNABLE, 4 * (living + DENSE)
        assert history.local_history["alice_payload_bytes"] == [dense_rounds + mask + last]
        assert history.global_history["payload_bytes"] == [2 * (dense_rounds + mask + last)]

    @pytest.mark.parametrize(
        "optimizer",
        [
            optim_wrapper(optim.SGD, lr=0.1, momentum=0.9),
            optim_wrapper(optim.Adam, lr=0.01),
            optim_wrapper(optim.AdamW, lr=0.01, weight_decay=0.1),
        ],
        ids=["momentum", "adam", "adamw"],
    )
    def test_no_optimiser_revives_a_pruned_weight(self, task: Task, optimizer: Callable[..., Any]) -> None:
        model = task.make_model(optimizer=optimizer)
        model.fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0)
        for worker in model._workers.values():
            mask, _ = sf.reveal(worker.prune_state())
            uploaded, _ = sf.reveal(worker.train_step(None, 0, 3, refresh_data=True))
            for entry, weight in zip(mask, [w for w in uploaded if w.ndim >= 2], strict=True):
                assert np.array_equal(weight != 0, entry != 0)

    def test_dead_weights_of_one_party_do_not_come_back_with_the_average(self, task: Task) -> None:
        model = task.make_model()
        model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)
        worker = next(iter(model._workers.values()))
        mask, _ = sf.reveal(worker.prune_state())
        worker.apply_weights([np.ones_like(w) for w in sf.reveal(worker.get_weights())])
        kept = [w for w in sf.reveal(worker.get_weights()) if w.ndim >= 2]
        assert all(np.array_equal(weight, entry) for weight, entry in zip(kept, mask, strict=True))

    def test_a_second_fit_goes_on_with_the_masks_of_the_first(self, task: Task) -> None:
        model = task.make_model(prune_end_rate=0.2)
        model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)
        history = model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)
        assert history.global_history["living_rate"] == [LIVING[1] / PRUNABLE]

    def test_a_loaded_model_has_the_saved_weights_masks_and_rates(self, task: Task, tmp_path: Path) -> None:
        saved = task.make_model()
        saved.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)
        saved.save_model(f"{tmp_path}/model", is_test=True)
        loaded = task.make_model(random_seed=99)
        loaded.load_model(f"{tmp_path}/model", is_test=True)
        for ours, theirs in zip(saved._workers.values(), loaded._workers.values(), strict=True):
            for a, b in zip(*(sf.reveal(worker.get_weights()) for worker in (ours, theirs)), strict=True):
                assert np.array_equal(a, b)
            (mask_a, rate_a), (mask_b, rate_b) = (
                sf.reveal(worker.prune_state()) for worker in (ours, theirs)
            )
            assert rate_a == rate_b == LIVING[0] / PRUNABLE
            assert all(np.array_equal(a, b) for a, b in zip(mask_a, mask_b, strict=True))

    @pytest.mark.parametrize("skip_bn", [False, True])
    def test_a_net_with_batch_normalisation_trains(self, task: Task, skip_bn: bool) -> None:
        model = task.make_model(NormedMlp, skip_bn=skip_bn)
        model.fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0)
        for weights in _weights(model).values():
            assert _zero_fractions(weights) == [1 - 18 / 48, 1 - 7 / 18]

    def test_layers_behind_a_skipped_batch_normalisation_are_aggregated(self, task: Task) -> None:
        model = task.make_model(NormedMlp, skip_bn=True, prune_end_rate=1)
        alice, bob = model._workers.values()
        ones = [np.ones_like(array) for array in sf.reveal(alice.get_weights())]
        for worker in (alice, bob):
            worker.set_weights(ones)
        for array in sf.reveal(bob.get_weights()):
            assert (array == 1).all()

    def test_weights_that_two_layers_share_are_pruned_once(self, task: Task) -> None:
        model = task.make_model(TiedMlp)
        model.fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0)
        for weights in _weights(model).values():
            first, second, _ = [w for w in weights if w.ndim >= 2]
            assert np.array_equal(first, second)
            assert np.count_nonzero(first) == 64 - 25 - 15

    @pytest.mark.parametrize("mask_scope", ["local", "global"])
    def test_noise_of_differential_privacy_stays_where_weights_live(
        self, task: Task, mask_scope: str
    ) -> None:
        noise = DPStrategyFL(GaussianModelDP(noise_multiplier=0.5, num_clients=2))
        model = task.make_model(dp_strategy=noise, mask_scope=mask_scope)
        quiet = task.make_model(mask_scope=mask_scope)
        quiet.fit(task.x, task.y, epochs=3, batch_size=BATCH, verbose=0, random_seed=5)
        history = model.fit(task.x, task.y, epochs=3, batch_size=BATCH, verbose=0, random_seed=5)
        for party, weights in _weights(model).items():
            for noisy, plain in zip(weights, _weights(quiet)[party], strict=True):
                assert not np.isclose(noisy, plain, atol=1e-3).all()
            assert _zero_fractions(weights) == [
                1 - history.local_history[f"{party}_living_rate.{layer}"][-1]
                for layer in ("hidden.weight", "out.weight")
            ]
        if mask_scope == "global":
            alice, bob = _weights(model).values()
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

    def test_a_blind_server_changes_no_result(self, task: Task) -> None:
        plain, blind = task.make_model(), task.make_model(aggregator_options={"server_blind": True})
        for model in (plain, blind):
            model.fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0, random_seed=5)
        for a, b in zip(_weights(plain)["alice"], _weights(blind)["alice"], strict=True):
            assert np.array_equal(a, b)

    def test_the_name_of_the_strategy_is_enough(self, task: Task) -> None:
        runs = [task.make_model(**how) for how in ({}, {"wp_strategy": True})]
        for model in runs:
            model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0, random_seed=5)
        for a, b in zip(*(_weights(model)["bob"] for model in runs), strict=True):
            assert np.array_equal(a, b)

    def test_a_captured_gradient_is_that_of_the_captured_batch_and_weights(
        self, task: Task, tmp_path: Path
    ) -> None:
        capture = GradientCapture(directory=str(tmp_path / "capture"), party="bob", rounds=(STEPS + 1,))
        task.make_model(gradient_capture=capture).fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0)
        seen = load_capture(tmp_path / "capture")
        assert seen.living_rate == LIVING[0] / PRUNABLE
        net = Mlp()
        net.load_state_dict(seen.weights)
        loss = nn.CrossEntropyLoss()(net(seen.x), seen.y)
        for got, expected in zip(
            seen.gradients, torch.autograd.grad(loss, list(net.parameters())), strict=True
        ):
            torch.testing.assert_close(got, expected)


class TestHistory:
    def test_history_is_a_dictionary_that_reads_like_an_object(self, task: Task) -> None:
        history = task.make_model().fit(
            task.x, task.y, validation_data=(task.x, task.y), epochs=2, batch_size=BATCH, verbose=0
        )
        assert isinstance(history, dict)
        assert history.global_history is history["global_history"]
        for column in ("multiclassaccuracy", "val_multiclassaccuracy", "living_rate", "payload_bytes"):
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
        assert "living_rate" in shown


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
        assert len(history.global_history["living_rate"]) < 9


class TestBadArguments:
    @pytest.fixture(autouse=True)
    def _no_worker_may_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            pytest.fail("a worker was started")

        monkeypatch.setattr("secretflow.ml.nn.fl.fl_model.dispatch_strategy", refuse)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"prune_end_rate": 0}, "prune_end_rate must be .*, got 0"),
            ({"prune_end_rate": 1.5}, "prune_end_rate must be a number above 0 and at most 1, got 1.5"),
            ({"prune_percent": 100}, "prune_percent must be a number above 0 and below 100, got 100"),
            ({"mask_scope": "all"}, "mask_scope must be one of 'local', 'global', got 'all'"),
            ({"wp_strategy": False}, "wp_strategy must be True or None"),
            ({"net": NothingToPrune}, "got NothingToPrune, which has nothing to prune"),
            ({"net": WithSwitch}, "got torch.bool in switch of WithSwitch"),
        ],
    )
    def test_a_bad_argument_is_named_with_value_and_range(
        self, task: Task, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            task.make_model(**options)

    @pytest.mark.parametrize(
        "options",
        [
            {"wp_strategy": True},
            {"prune_end_rate": 0.1},
            {"prune_percent": 5},
            {"gradient_capture": GradientCapture("captures", "alice")},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_other_strategies_take_no_argument_of_pruning(
        self, devices: SimpleNamespace, options: dict[str, Any]
    ) -> None:
        with pytest.raises(ValueError, match=f"must be 'fed_avg_w_prune' with {next(iter(options))}="):
            FLModel(
                devices.carol,
                [devices.alice],
                model_def(),
                PlainAggregator(devices.carol),
                backend="torch",
                **options,
            )

    def _model(self, devices: SimpleNamespace, **options: Any) -> FLModel:
        parties = [devices.alice, devices.bob]
        return FLModel(
            **{
                "server": devices.carol,
                "device_list": parties,
                "model": model_def(),
                "aggregator": SecurePruneAggregator(devices.carol, parties),
                "strategy": "fed_avg_w_prune",
                "backend": "torch",
                **options,
            }
        )

    def test_an_aggregator_that_cannot_take_masks_is_refused(self, devices: SimpleNamespace) -> None:
        with pytest.raises(TypeError, match=r"aggregator must be a Secure.*got .*PlainAggregator"):
            self._model(devices, aggregator=PlainAggregator(devices.carol))

    def test_an_aggregator_of_other_parties_is_refused(self, devices: SimpleNamespace) -> None:
        with pytest.raises(ValueError, match=r"device_list must be the aggregator.*got .*davy"):
            self._model(devices, device_list=[devices.alice, devices.davy])

    def test_another_backend_is_refused(self, devices: SimpleNamespace) -> None:
        with pytest.raises(ValueError, match=r"backend must be 'torch' .*got 'tensorflow'"):
            self._model(devices, backend="tensorflow")

    def test_no_model_is_refused(self, devices: SimpleNamespace) -> None:
        with pytest.raises(ValueError, match=r"model must be a TorchModel .*got None"):
            self._model(devices, model=None)


@pytest.mark.parametrize(
    "name", ["epochs", "aggregate_freq", "validation_freq", "wait_steps", "dp_spent_step_freq"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_fit_refuses_a_bad_count(task: Task, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1.*got {value!r}"):
        task.make_model().fit(task.x, task.y, batch_size=BATCH, **{name: value})


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
        results.append((history, _weights(model)["alice"]))
    (ours, our_weights), (theirs, their_weights) = results
    assert isinstance(ours, History)
    assert ours.global_history == theirs["global_history"]
    assert all(np.array_equal(a, b) for a, b in zip(our_weights, their_weights, strict=True))
