"""A fit that fails, is called within another one or meets another state leaves nothing wrong behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import optim
from torch.utils.data import DataLoader, TensorDataset

import secretflow as sf
from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.fl.session import FitSession
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.client import Client
from secretflow.security.aggregation.secagg.errors import AggregationError

from .conftest import BATCH, weights_of

Data = tuple[FedNdarray, FedNdarray]
MakeModel = Callable[..., FLModel]
HALF = {"prune_end_rate": 0.3, "prune_percent": 30}


def rates(model: FLModel) -> list[float]:
    return [sf.reveal(worker.densities())[""] for worker in model._workers.values()]


class FailsLater(optim.SGD):
    """Fails in one step of the second party, once."""

    steps_left = -1

    def step(self, *args: Any, **kwargs: Any) -> Any:
        FailsLater.steps_left -= 1
        if FailsLater.steps_left == 0:
            raise RuntimeError("this step fails")
        return super().step(*args, **kwargs)


@pytest.fixture
def broken(make_model: MakeModel, data: Data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FLModel:
    """Saved as made, trained for an epoch, and then failed: Alice has pruned, Bob not."""
    model = make_model(optimizer=FailsLater, **HALF)
    model.save_model(str(tmp_path / "model"), is_test=True)
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    # Alice goes through all her steps of a round before Bob begins.
    monkeypatch.setattr(FailsLater, "steps_left", 4)
    with pytest.raises(RuntimeError, match="this step fails"):
        model.fit(*data, epochs=1, batch_size=BATCH, aggregate_freq=3, verbose=0)
    return model


def test_after_a_failed_round_all_parties_stand_where_it_began(broken: FLModel, data: Data) -> None:
    assert rates(broken)[0] == rates(broken)[1] == pytest.approx(0.7, abs=0.02)
    assert broken.epochs_trained() == 1
    broken.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    assert rates(broken)[0] == rates(broken)[1] == pytest.approx(0.49, abs=0.03)


@pytest.mark.parametrize("noise", [False, True])
def test_a_failed_round_that_prunes_or_adds_noise_leaves_the_weights_of_its_beginning(
    make_model: MakeModel, data: Data, monkeypatch: pytest.MonkeyPatch, noise: bool
) -> None:
    """The next fit begins with an upload without noise, which must not be what one party has trained."""
    chosen = {"prune_end_rate": 1.0, "mask_scope": "global"} if noise else HALF
    model = make_model(optimizer=FailsLater, **chosen)
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    before = weights_of(model)
    if noise:
        model.dp_strategy = SimpleNamespace(model_gdp=lambda arrays: [array + 1 for array in arrays])
    monkeypatch.setattr(FailsLater, "steps_left", 4)
    with pytest.raises(RuntimeError, match="this step fails"):
        model.fit(*data, epochs=1, batch_size=BATCH, aggregate_freq=3, verbose=0)
    for now, then in zip(weights_of(model)[0], before[0], strict=True):
        np.testing.assert_allclose(now, then, atol=1e-5)  # averaged once more when the fit began


def test_a_model_loaded_after_a_failed_fit_is_the_saved_one(
    broken: FLModel, data: Data, tmp_path: Path
) -> None:
    broken.load_model(str(tmp_path / "model"), is_test=True)
    assert rates(broken) == [1.0, 1.0]
    saved = torch.load(tmp_path / "alice" / "model")["model_state_dict"]
    history = broken.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    assert history.local_history["alice_density"] == history.local_history["bob_density"]
    assert rates(broken)[0] == pytest.approx(0.7, abs=0.02)
    assert all((value != 0).all() for value in saved.values())


def test_parties_one_step_of_a_shared_mask_apart_are_told_what_to_do(
    make_model: MakeModel, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(mask_scope="global", **HALF)
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    model.save_model(str(tmp_path / "model"), is_test=True)
    open_into = Client.open_into

    def broken_at_bob(client: Client, *args: Any) -> None:
        if client.party == "bob":
            raise KeyboardInterrupt
        open_into(client, *args)

    train = FitSession._train

    def last_sum_breaks(self: FitSession, rounds: Any) -> None:
        patch.setattr(Client, "open_into", broken_at_bob)
        train(self, rounds)

    with monkeypatch.context() as patch:
        patch.setattr(FitSession, "_train", last_sum_breaks)
        with pytest.raises(KeyboardInterrupt):
            model.fit(*data, epochs=1, batch_size=BATCH, aggregate_freq=100, verbose=0)
    with pytest.raises(AggregationError, match=r"with the same model, settings.*same checkpoint"):
        model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    model.load_model(str(tmp_path / "model"), is_test=True)
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    assert rates(model)[0] == rates(model)[1]


class Does(Callback):
    """Does something when an epoch begins or ends."""

    def __init__(self, begin: Callable[[], Any] | None = None, end: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self._begin, self._end = begin, end

    def on_epoch_begin(self, epoch: int | None = None, logs: Any = None) -> None:
        if self._begin:
            self._begin()

    def on_epoch_end(self, epoch: int | None = None, logs: Any = None) -> None:
        if self._end:
            self._end()


def test_a_model_is_not_loaded_within_a_fit(make_model: MakeModel, data: Data, tmp_path: Path) -> None:
    model, path = make_model(**HALF), str(tmp_path / "model")
    model.save_model(path, is_test=True)
    with pytest.raises(RuntimeError, match="load_model must be called between two fits"):
        model.fit(
            *data,
            epochs=2,
            batch_size=BATCH,
            verbose=0,
            callbacks=[Does(end=lambda: model.load_model(path, is_test=True))],
        )
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)


def test_a_fit_is_not_begun_within_another(make_model: MakeModel, data: Data) -> None:
    model = make_model(**HALF)
    nested = Does(begin=lambda: model.fit(*data, epochs=1, batch_size=5, verbose=0))
    with pytest.raises(RuntimeError, match="fit must be called when the last fit"):
        model.fit(*data, epochs=1, batch_size=BATCH, verbose=0, callbacks=[nested])
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)


def test_what_a_callback_averages_is_no_round_of_the_history(
    make_model: MakeModel, data: Data, parties: list[Any]
) -> None:
    def fitted(callbacks: Callable[[FLModel], list[Any]]) -> Any:
        model = make_model(**HALF)
        return model.fit(
            *data, epochs=3, batch_size=BATCH, verbose=0, random_seed=1, callbacks=callbacks(model)
        )

    def averaging(model: FLModel) -> list[Any]:
        held = [party(lambda: np.ones(5))() for party in parties]
        return [Does(begin=lambda: model._aggregator.average(held, axis=0))]

    alone, averaged = fitted(lambda _: []), fitted(averaging)
    for column in ("payload_bytes", "density", "multiclassaccuracy"):
        assert alone.global_history[column] == averaged.global_history[column]
    name = "alice_round_payload_bytes"
    assert alone.local_history[name] == averaged.local_history[name]


def test_clients_that_another_aggregator_has_taken_in_are_made_anew(
    make_model: MakeModel, data: Data, devices: SimpleNamespace, parties: list[Any]
) -> None:
    blind = SecurePruneAggregator(devices.carol, parties, server_blind=True)
    model = make_model(aggregator=blind, **HALF)
    SecurePruneAggregator(devices.carol, parties).host_at(model._workers)
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    for worker in model._workers.values():
        keys = worker.data._actor_handle._client.keys
        assert keys._group is not None, "the server reads along"
    one, other = weights_of(model)
    np.testing.assert_array_equal(one[1], other[1])


class Shorter(DataLoader):
    """Gives fewer rows than its sampler says."""

    def __iter__(self) -> Any:
        return ((x[1:], y[1:]) for x, y in super().__iter__())


def shorter_batches(arrays: list[np.ndarray], stage: str) -> tuple[DataLoader, int]:
    return Shorter(TensorDataset(*map(torch.tensor, arrays)), batch_size=8), 3


def test_batches_of_other_sizes_than_their_sampler_says_are_no_weight(
    make_model: MakeModel, data: Data, parties: list[Any]
) -> None:
    with pytest.raises(ValueError, match="must have as many rows as their sampler says, 8, got 7"):
        make_model(**HALF).fit(
            *data, epochs=1, verbose=0, dataset_builder=dict.fromkeys(parties, shorter_batches)
        )
