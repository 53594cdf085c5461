"""FLModel with pruning: what ``fit`` promises of weights, masks and uploads, in one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

import secretflow as sf
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.ml.nn.fl import GradientCapture
from secretflow.ml.nn.fl.audit import load_capture
from secretflow.security.aggregation.secagg.ballot import Ballot

from .conftest import CLASSES, FEATURES, Mlp, NormedMlp, Task
from .measures import BATCH, DENSE, LIVING, PRUNABLE, STEPS, weights_of, zero_fractions


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


class TestTraining:
    def test_zeros_of_saved_and_evaluated_layers_are_the_reported_rates(
        self, task: Task, tmp_path: Path
    ) -> None:
        model = task.make_model()
        history = model.fit(
            task.x, task.y, validation_data=(task.x, task.y), epochs=3, batch_size=BATCH, verbose=0
        )
        model.save_model(f"{tmp_path}/model", is_test=True)
        for party, weights in weights_of(model).items():
            reported = [
                history.local_history[f"{party}_density.{layer}"][-1]
                for layer in ("hidden.weight", "out.weight")
            ]
            assert zero_fractions(weights) == [1 - rate for rate in reported]
            saved = torch.load(tmp_path / party / "model")["model_state_dict"]
            for layer, rate in zip(("hidden.weight", "out.weight"), reported, strict=True):
                assert (saved[layer] != 0).sum().item() == rate * saved[layer].numel()
        assert history.global_history["density"][-1] < 0.31

    def test_the_density_follows_the_schedule_and_lands_on_the_end_rate(self, task: Task) -> None:
        history = task.make_model().fit(task.x, task.y, epochs=4, batch_size=BATCH, verbose=0)
        assert history.global_history["density"] == [living / PRUNABLE for living in LIVING]

    @pytest.mark.parametrize("aggregate_freq", [1, 2, 3, STEPS, 100])
    def test_an_epoch_ends_with_pruning_whatever_the_aggregation_frequency(
        self, task: Task, aggregate_freq: int
    ) -> None:
        history = task.make_model().fit(
            task.x, task.y, epochs=2, batch_size=BATCH, aggregate_freq=aggregate_freq, verbose=0
        )
        assert history.global_history["density"] == [living / PRUNABLE for living in LIVING[:2]]

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
            ballot = Ballot(2, counting=regrow_percent > 0, leaving=True)
            assert last == ballot.nbytes(PRUNABLE if regrow_percent else before) + 4 * (living + DENSE)
            before = living

    def test_the_round_that_prunes_uploads_the_pruned_weights(self, task: Task) -> None:
        # Equal rows and seeds: both parties have the same mask, so the support has the living size.
        history = task.make_model().fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)
        living = round(history.global_history["density"][0] * PRUNABLE)
        dense_rounds, last = (STEPS - 1) * 4 * (PRUNABLE + DENSE), 4 * (living + DENSE)
        mask = Ballot(2, counting=False, leaving=True).nbytes(PRUNABLE)
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
        assert history.global_history["density"] == [LIVING[1] / PRUNABLE]

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
        for weights in weights_of(model).values():
            assert zero_fractions(weights) == [1 - 18 / 48, 1 - 7 / 18]

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
        for weights in weights_of(model).values():
            first, second, _ = [w for w in weights if w.ndim >= 2]
            assert np.array_equal(first, second)
            assert np.count_nonzero(first) == 64 - 25 - 15

    def test_a_blind_server_changes_no_result(self, task: Task) -> None:
        plain, blind = task.make_model(), task.make_model(aggregator_options={"server_blind": True})
        for model in (plain, blind):
            model.fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0, random_seed=5)
        for a, b in zip(weights_of(plain)["alice"], weights_of(blind)["alice"], strict=True):
            assert np.array_equal(a, b)

    def test_the_name_of_the_strategy_is_enough(self, task: Task) -> None:
        runs = [task.make_model(**how) for how in ({}, {"wp_strategy": True})]
        for model in runs:
            model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0, random_seed=5)
        for a, b in zip(*(weights_of(model)["bob"] for model in runs), strict=True):
            assert np.array_equal(a, b)

    def test_a_captured_gradient_is_that_of_the_captured_batch_and_weights(
        self, task: Task, tmp_path: Path
    ) -> None:
        capture = GradientCapture(directory=str(tmp_path / "capture"), party="bob", rounds=(STEPS + 1,))
        task.make_model(gradient_capture=capture).fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0)
        seen = load_capture(tmp_path / "capture")
        assert seen.density == LIVING[0] / PRUNABLE
        net = Mlp()
        net.load_state_dict(seen.weights)
        loss = nn.CrossEntropyLoss()(net(seen.x), seen.y)
        for got, expected in zip(
            seen.gradients, torch.autograd.grad(loss, list(net.parameters())), strict=True
        ):
            torch.testing.assert_close(got, expected)
