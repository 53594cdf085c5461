"""What a party withholds stays with it and what it prunes stays pruned, in rounds that fail too."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import optim

import secretflow as sf
from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.ml.nn.fl.backend.torch.withholding import Withholding
from secretflow.ml.nn.fl.plan import plan_epochs
from secretflow.ml.nn.fl.pruning import PruneSettings, density
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.utils.simulation.data.ndarray import create_ndarray

from ..conftest import Mlp, model_def
from .conftest import BATCH, LR, ROWS, data_of, masks_of, weights_of
from .reference import named


def test_a_party_uploads_the_rounds_start_where_it_withholds_and_keeps_the_rest_for_the_next_round(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(prune_end_rate=1, withhold_percent=25)
    uploads: dict[int, list[np.ndarray]] = {}
    upload = Client.upload

    def listen(client: Client, call: Call, arrays: Any) -> Any:
        if call.operation is Operation.AVERAGE:
            flat = np.concatenate([array.ravel() for array in arrays])
            uploads.setdefault(call.number, []).append(flat)
        return upload(client, call, arrays)

    monkeypatch.setattr(Client, "upload", listen)
    start = [np.concatenate([array.ravel() for array in arrays]) for arrays in weights_of(model)]
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    first, second, *_ = uploads.values()  # one upload a round
    withheld = round(len(start[0]) / 4)
    batches = [int(rows * BATCH / min(ROWS)) for rows in ROWS]
    mean = (first[0] * batches[0] + first[1] * batches[1]) / sum(batches)
    for k in range(2):
        for upload, begin in ((first[k], start[k]), (second[k], mean)):
            # The average went through fixed point, so it is only nearly what was put in.
            assert withheld <= np.count_nonzero(np.abs(upload - begin) < 1e-5) < 2 * withheld


def test_what_one_of_three_parties_has_pruned_stays_zero_though_the_others_average_it(
    devices: SimpleNamespace,
) -> None:
    parties = [devices.alice, devices.bob, devices.carol]
    model = FLModel(
        server=devices.davy,
        device_list=parties,
        model=model_def(Mlp, optim_wrapper(optim.SGD, lr=LR)),
        aggregator=SecurePruneAggregator(devices.davy, parties),
        strategy="fed_avg_w_prune",
        backend="torch",
        random_seed=1,
        prune_percent=40,
    )
    x, y = data_of(0, 90)
    thirds = {party: (30 * k, 30 * k + 30) for k, party in enumerate(parties)}
    held = [create_ndarray(array, parts=thirds, axis=0) for array in (x, y)]
    for _ in range(2):
        model.fit(*held, epochs=1, batch_size=BATCH, verbose=0)
        masks = masks_of(model)
        for mask, arrays in zip(masks, weights_of(model), strict=True):
            for entry, array in zip(mask, [a for a in arrays if a.ndim >= 2], strict=True):
                assert not array[entry == 0].any()
    by_layer = zip(*masks, strict=True)
    assert any(((a + b == 2) & (c == 0)).any() for a, b, c in by_layer)  # or nothing was to stay zero


class FailsOnce(optim.SGD):
    """Fails in one of its steps."""

    steps_left = 0

    def step(self, *args: Any, **kwargs: Any) -> Any:
        FailsOnce.steps_left -= 1
        if FailsOnce.steps_left == 0:
            raise RuntimeError("this step fails")
        return super().step(*args, **kwargs)


def test_a_round_that_fails_gives_nothing_away_that_was_withheld(
    make_model: Callable[..., FLModel],
    data: tuple[FedNdarray, FedNdarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[list[np.ndarray]] = []
    begin = Withholding.begin

    def recorded(withholding: Withholding, parameters: list[torch.Tensor]) -> None:
        begun.append([parameter.numpy().copy() for parameter in parameters])
        begin(withholding, parameters)

    monkeypatch.setattr(Withholding, "begin", recorded)
    monkeypatch.setattr(FailsOnce, "steps_left", 4)  # of Bob, who comes second, in his second round
    model = make_model(prune_end_rate=0.5, withhold_percent=25, optimizer=FailsOnce)
    with pytest.raises(RuntimeError, match="this step fails"):
        model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    assert len(begun) == 4
    for left, start in zip(weights_of(model)[1], begun[-1], strict=True):
        np.testing.assert_array_equal(left, start)


def test_a_round_that_a_peer_leaves_gives_nothing_away_and_takes_its_step_of_pruning_back(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], parties: list[Any]
) -> None:
    """The party has trained, pruned and proposed its mask, and the sum of the masks never comes."""
    settings = PruneSettings(prune_end_rate=0.5, prune_percent=10, withhold_percent=25)
    model = make_model(prune_end_rate=0.5, prune_percent=10, withhold_percent=25)
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0, random_seed=3)
    worker = model._workers[parties[0]]
    start, mask = sf.reveal(worker.get_weights()), sf.reveal(worker.prune_state()[0])
    (rounds,) = plan_epochs(settings, [10], [9], trained=1, epochs=1, steps=1, aggregate_freq=1)
    assert rounds[0].prunes
    worker.begin_rounds(10_000, rounds)
    assert sf.reveal(worker.advance(None))["encoding"].startswith("mask")
    assert sf.reveal(worker.prune_state()[1]) < density(named(mask))
    worker.abandon()
    for entry, before in zip(sf.reveal(worker.prune_state()[0]), mask, strict=True):
        np.testing.assert_array_equal(entry, before)
    left = sf.reveal(worker.get_weights())
    living = sum(np.count_nonzero(array) for array in left)
    same = sum(np.count_nonzero((a == b) & (b != 0)) for a, b in zip(start, left, strict=True))
    assert same == living > 0
