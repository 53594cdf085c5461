"""Pruned training with unequal parties: the same numbers as a plain simulation, in both mask scopes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

import secretflow as sf
from secretflow.data.core import partition
from secretflow.data.horizontal import HDataFrame
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks.callback import Callback
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.ml.nn.fl import CaptureRounds, GradientCapture
from secretflow.ml.nn.fl.audit import load_capture
from secretflow.ml.nn.fl.backend.torch.withholding import Withholding
from secretflow.ml.nn.fl.plan import plan_epochs
from secretflow.ml.nn.fl.pruning import Mask, PruneSettings, full_mask, living_rate, pruned_masks
from secretflow.security.aggregation import PlainAggregator, SecurePruneAggregator
from secretflow.security.aggregation.secagg.call import Call, Operation
from secretflow.security.aggregation.secagg.client import Client
from secretflow.utils.simulation.data.ndarray import create_ndarray

from .conftest import CLASSES, FEATURES, Mlp, model_def

ROWS = (40, 24)
BATCH = 10  # of the smaller party; the larger one's batches are as many, so they are larger
LR = 0.1
LAYERS = ("hidden.weight", "out.weight")


def data_of(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    return x, np.eye(CLASSES, dtype=np.float32)[x[:, :CLASSES].argmax(axis=1)]


@pytest.fixture
def parties(devices: SimpleNamespace) -> list[Any]:
    return [devices.alice, devices.bob]


@pytest.fixture
def data(parties: list[Any]) -> tuple[FedNdarray, FedNdarray]:
    arrays = [data_of(seed, rows) for seed, rows in enumerate(ROWS)]
    parts = {parties[0]: (0, ROWS[0]), parties[1]: (ROWS[0], sum(ROWS))}
    x, y = (np.concatenate(both) for both in zip(*arrays, strict=True))
    return create_ndarray(x, parts=parts, axis=0), create_ndarray(y, parts=parts, axis=0, is_label=True)


@pytest.fixture
def make_model(devices: SimpleNamespace, parties: list[Any]) -> Callable[..., FLModel]:
    def make(
        strategy: str = "fed_avg_w_prune",
        aggregator: Any = None,
        optimizer: Any = optim.SGD,
        **options: Any,
    ) -> FLModel:
        return FLModel(
            server=devices.carol,
            device_list=parties,
            model=model_def(Mlp, optim_wrapper(optimizer, lr=LR)),
            aggregator=aggregator or SecurePruneAggregator(devices.carol, parties),
            strategy=strategy,
            backend="torch",
            random_seed=5,
            **options,
        )

    return make


def weights_of(model: FLModel) -> list[list[np.ndarray]]:
    return [sf.reveal(worker.get_weights()) for worker in model._workers.values()]


def masks_of(model: FLModel) -> list[Mask]:
    return [sf.reveal(worker.prune_state()[0]) for worker in model._workers.values()]


class Reference:
    """Federated averaging with pruning written out, with nothing of SecretFlow's."""

    def __init__(self, settings: PruneSettings) -> None:
        self.settings = settings
        self.nets = [Mlp(), Mlp()]
        for net in self.nets:
            torch.manual_seed(5)
            net.load_state_dict(Mlp().state_dict())
        self.masks = [full_mask(self._matrices(net)) for net in self.nets]
        self.starts = [self._flat(net) for net in self.nets]
        self.withheld = [np.zeros_like(start) for start in self.starts]

    @staticmethod
    def _flat(net: nn.Module) -> np.ndarray:
        return np.concatenate([value.numpy().ravel() for value in net.state_dict().values()])

    @staticmethod
    def _fill(net: nn.Module, flat: np.ndarray) -> None:
        first = 0
        for value in net.state_dict().values():
            value.numpy().flat = flat[first : first + value.numel()]
            first += value.numel()

    def _begin_round(self, k: int) -> None:
        self.starts[k] = self._flat(self.nets[k])
        self._fill(self.nets[k], self.starts[k] + self.withheld[k])
        self._zero(k)

    def _withhold(self, k: int) -> None:
        lives = np.concatenate(
            [
                self.masks[k][LAYERS.index(name)].ravel() if name in LAYERS else np.ones(value.numel())
                for name, value in self.nets[k].state_dict().items()
            ]
        )
        trained = self._flat(self.nets[k])
        change = (trained - self.starts[k]) * lives
        largest = np.argsort(-np.abs(change))[: round(lives.sum() * self.settings.withhold_percent / 100)]
        self.withheld[k] = np.zeros_like(change)
        self.withheld[k][largest] = change[largest]
        trained[largest] = self.starts[k][largest]
        self._fill(self.nets[k], trained)

    @staticmethod
    def _matrices(net: nn.Module) -> list[np.ndarray]:
        state = net.state_dict()
        return [state[name].numpy() for name in LAYERS]

    def _zero(self, k: int) -> None:
        for array, mask in zip(self._matrices(self.nets[k]), self.masks[k], strict=True):
            array *= mask

    def _prune(self, k: int, epoch: float) -> None:
        if self.settings.step_due(epoch, living_rate(self.masks[k])):
            gradients = [dict(self.nets[k].named_parameters())[name].grad.numpy() for name in LAYERS]
            self.masks[k] = list(
                pruned_masks(self._matrices(self.nets[k]), self.masks[k], self.settings, epoch, gradients)
            )
            self._zero(k)

    def _average(self, sizes: list[int]) -> None:
        states = [net.state_dict() for net in self.nets]
        for name in states[0]:
            values = [state[name].numpy() for state in states]
            masks = [
                mask[LAYERS.index(name)] if name in LAYERS else np.ones(value.shape)
                for mask, value in zip(self.masks, values, strict=True)
            ]
            both = (masks[0] * masks[1]) == 1
            mean = (sizes[0] * values[0] + sizes[1] * values[1]) / sum(sizes)
            for value in values:
                value[both] = mean[both]

    def fit(self, epochs: int, aggregate_freq: int) -> None:
        rate = BATCH / min(ROWS)
        batches = [int(rows * rate) for rows in ROWS]
        steps = int(np.ceil(1 / rate))
        data = [data_of(seed, rows) for seed, rows in enumerate(ROWS)]
        for epoch in range(1, epochs + 1):
            for first in range(0, steps, aggregate_freq):
                last = min(first + aggregate_freq, steps)
                number, rounds = first // aggregate_freq + 1, -(-steps // aggregate_freq)
                # Written out: the last round of an epoch, and each prune_freq-th before it.
                step = number == rounds or number in range(0, rounds, self.settings.prune_freq or rounds)
                passed = epoch - 1 + number / rounds
                sizes = [0, 0]
                for k, (x, y) in enumerate(data):
                    self._begin_round(k)
                    optimizer = optim.SGD(self.nets[k].parameters(), lr=LR)
                    for batch in range(first, last):
                        place = slice(batch * batches[k], (batch + 1) * batches[k])
                        inputs, labels = torch.tensor(x[place]), torch.tensor(y[place])
                        sizes[k] += len(inputs)
                        optimizer.zero_grad()
                        nn.functional.cross_entropy(self.nets[k](inputs), labels).backward()
                        optimizer.step()
                        self._zero(k)
                    if step and self.settings.mask_scope == "local":
                        self._prune(k, passed)
                    self._withhold(k)
                self._average(sizes)
                if step and self.settings.mask_scope == "global":
                    for k in range(2):
                        self._prune(k, passed)


CASES = {
    "local": {},
    "local, over layers": {"prune_scope": "global"},
    "local, cubic": {"prune_schedule": "cubic", "prune_start_epoch": 1, "prune_end_epoch": 3},
    "local, regrowing": {"regrow_percent": 20},
    "local, by snip": {"prune_criterion": "snip"},
    "local, within epochs": {"prune_freq": 2, "prune_percent": 10},
    "local, cubic, within epochs": {
        "prune_schedule": "cubic",
        "prune_freq": 1,
        "prune_start_epoch": 1,
        "prune_end_epoch": 3,
    },
    "global, within epochs": {"mask_scope": "global", "prune_freq": 2},
    "global, cubic, within epochs": {
        "mask_scope": "global",
        "prune_schedule": "cubic",
        "prune_freq": 1,
        "prune_end_epoch": 3,
    },
    "local, withholding": {"withhold_percent": 30},
    "local, regrowing and withholding": {"regrow_percent": 20, "withhold_percent": 30},
    "global": {"mask_scope": "global"},
    "global, withholding": {"mask_scope": "global", "withhold_percent": 30},
    "global, over layers, cubic": {
        "mask_scope": "global",
        "prune_scope": "global",
        "prune_schedule": "cubic",
        "prune_end_epoch": 3,
    },
}


@pytest.mark.parametrize("aggregate_freq", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_training_is_what_a_plain_simulation_computes(
    make_model: Callable[..., FLModel],
    data: tuple[FedNdarray, FedNdarray],
    case: str,
    aggregate_freq: int,
) -> None:
    chosen: dict[str, Any] = {"prune_end_rate": 0.3, "prune_percent": 30, **CASES[case]}
    model = make_model(**chosen)
    history = model.fit(*data, epochs=4, batch_size=BATCH, aggregate_freq=aggregate_freq, verbose=0)
    reference = Reference(PruneSettings(**chosen))
    reference.fit(4, aggregate_freq)
    for mask, expected in zip(masks_of(model), reference.masks, strict=True):
        for entry, wanted in zip(mask, expected, strict=True):
            np.testing.assert_array_equal(entry, wanted)
    for weights, net in zip(weights_of(model), reference.nets, strict=True):
        for array, wanted in zip(weights, net.state_dict().values(), strict=True):
            np.testing.assert_allclose(array, wanted.numpy(), atol=1e-4)
    rates = [living_rate(mask) for mask in reference.masks]
    assert history.global_history["living_rate"][-1] == pytest.approx(sum(rates) / 2)
    if "global" in chosen.get("mask_scope", "local"):
        assert rates[0] == rates[1] < 0.31
    else:
        assert any((a != b).any() for a, b in zip(*reference.masks, strict=True)), (
            "masks of two parties differ"
        )


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
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    start, first, second, *_ = uploads.values()  # the initial weights, then one upload a round
    withheld = round(len(start[0]) / 4)
    batches = [int(rows * BATCH / min(ROWS)) for rows in ROWS]
    mean = (first[0] * batches[0] + first[1] * batches[1]) / sum(batches)
    for k in range(2):
        for upload, begin in ((first[k], start[k]), (second[k], mean)):
            # The average went through fixed point, so it is only nearly what was put in.
            assert withheld <= np.count_nonzero(np.abs(upload - begin) < 1e-5) < 2 * withheld


def test_without_pruning_it_is_federated_averaging(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], devices: SimpleNamespace
) -> None:
    plain = make_model(strategy="fed_avg_w", aggregator=PlainAggregator(devices.carol), optimizer=optim.Adam)
    dense = make_model(prune_end_rate=1, optimizer=optim.Adam)
    curves = []
    for model in (plain, dense):
        history = model.fit(*data, validation_data=data, epochs=3, batch_size=BATCH, verbose=0, random_seed=3)
        curves.append(history.global_history["val_multiclassaccuracy"])
    np.testing.assert_allclose(*curves)
    for one, other in zip(*(weights_of(model) for model in (plain, dense)), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_mask_for_all_takes_no_byte_to_agree_on(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    model = make_model(mask_scope="global", prune_end_rate=0.3, prune_percent=50)
    history = model.fit(*data, epochs=4, batch_size=BATCH, verbose=0)
    prunable, rest = FEATURES * 6 + 6 * CLASSES, 6 + CLASSES
    living = [1.0, *history.global_history["living_rate"][:-1]]
    for party in ("alice", "bob"):
        for rate, sizes in zip(living, history.local_history[f"{party}_round_payload_bytes"], strict=True):
            assert sizes == [4 * (round(rate * prunable) + rest)] * 3


def test_masks_that_no_longer_change_are_not_agreed_on_again(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    model = make_model(prune_end_rate=0.5, prune_percent=50, prune_start_epoch=1)
    history = model.fit(*data, epochs=5, batch_size=BATCH, verbose=0)
    prunable = FEATURES * 6 + 6 * CLASSES
    rounds = history.local_history["alice_round_payload_bytes"]
    assert rounds[0] == [4 * (prunable + 6 + CLASSES)] * 3, "nothing is pruned in the first epoch"
    # The last round of the second epoch carries the new masks, one byte a weight, and new denominators never.
    agreed = rounds[1][-1] - prunable
    assert rounds[1][:-1] == rounds[0][:-1] and agreed < rounds[0][0]
    assert rounds[2:] == [[agreed] * 3] * 3, "later rounds carry what lives and nothing else"
    for epoch, sizes in enumerate(rounds):
        assert history.local_history["alice_payload_bytes"][epoch] == sum(sizes)


def test_masks_are_agreed_on_after_steps_within_an_epoch_only(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    model = make_model(prune_end_rate=0.5, prune_percent=50, prune_start_epoch=1, prune_freq=2)
    history = model.fit(*data, epochs=4, batch_size=BATCH, verbose=0)
    prunable = FEATURES * 6 + 6 * CLASSES
    rounds = history.local_history["alice_round_payload_bytes"]
    dense = 4 * (prunable + 6 + CLASSES)
    # One step, in the second of three rounds, reaches the rate; the last round knows that and takes none.
    agreed = rounds[1][1] - prunable
    assert agreed < dense
    assert rounds == [[dense] * 3, [dense, agreed + prunable, agreed], [agreed] * 3, [agreed] * 3]


def test_the_history_tells_the_seconds_of_work(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    history = make_model().fit(*data, validation_data=data, epochs=2, batch_size=BATCH, verbose=0)
    for epoch in range(2):
        parts = [
            history.global_history[f"{name}_seconds"][epoch] for name in ("train", "aggregate", "evaluate")
        ]
        # In one process everything happens one after the other, at each of two parties.
        whole = history.global_history["seconds"][epoch]
        assert min(parts) > 0 and 2 * (parts[0] + parts[1]) + parts[2] < whole
        local = [history.local_history[f"{party}_train_seconds"][epoch] for party in ("alice", "bob")]
        assert history.global_history["train_seconds"][epoch] == pytest.approx(sum(local) / 2)


def test_parties_of_different_epochs_do_not_train_together(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], tmp_path: Any
) -> None:
    model, further = make_model(), make_model()
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    further.fit(*data, epochs=2, batch_size=BATCH, verbose=0)
    for k, (one, epochs) in enumerate(((model, "1"), (further, "2"))):
        one.save_model(f"{tmp_path}/{epochs}", is_test=True)
        assert sf.reveal([worker.epochs_trained() for worker in one._workers.values()]) == [k + 1] * 2
    mixed = make_model()
    alice, bob = mixed._workers
    with pytest.raises(ValueError, match=r"must hold epoch 1, .*bob/2' with epoch 2"):
        mixed.load_model({alice: f"{tmp_path}/alice/1", bob: f"{tmp_path}/bob/2"})
    sf.wait(mixed._workers[bob].load_model(f"{tmp_path}/bob/2"))
    with pytest.raises(ValueError, match=r"trained for \[1, 2\] epochs"):
        mixed.fit(*data, epochs=1, batch_size=BATCH, verbose=0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((40, 0), "x must have rows .*none at bob"),
        ((40, 9), "must be at most 9, the rows of bob, got 10"),
    ],
)
def test_too_few_rows_are_named(
    make_model: Callable[..., FLModel], parties: list[Any], rows: tuple[int, int], message: str
) -> None:
    x, y = data_of(0, sum(rows))
    parts = {parties[0]: (0, rows[0]), parties[1]: (rows[0], sum(rows))}
    held = [create_ndarray(array, parts=parts, axis=0) for array in (x, y)]
    with pytest.raises(ValueError, match=message):
        make_model().fit(*held, epochs=1, batch_size=BATCH, verbose=0)


def test_what_are_no_numbers_is_refused(make_model: Callable[..., FLModel], parties: list[Any]) -> None:
    x, y = data_of(0, 40)
    parts = {parties[0]: (0, 20), parties[1]: (20, 40)}
    held = [create_ndarray(array, parts=parts, axis=0) for array in (x.astype(str), y)]
    with pytest.raises(TypeError, match=r"x of alice has the dtype <U\d+"):
        make_model().fit(*held, epochs=1, batch_size=BATCH, verbose=0)


@pytest.mark.parametrize("damage", ["cut", "foreign", "of another strategy", "of another net"])
def test_a_bad_checkpoint_changes_nothing(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], tmp_path: Any, damage: str
) -> None:
    model = make_model()
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    paths = {party: tmp_path / party.party / "model" for party in model._workers}
    model.save_model(f"{tmp_path}/model", is_test=True)
    assert [path.name for folder in tmp_path.iterdir() for path in folder.iterdir()] == ["model"] * 2
    for path in paths.values():
        content = torch.load(path)
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-100])
        elif damage == "foreign":
            path.write_text("not a checkpoint")
        elif damage == "of another strategy":
            del content["prune_mask"]
            torch.save(content, path)
        else:
            content["model_state_dict"]["out.weight"] = torch.zeros(CLASSES, 7)
            torch.save(content, path)
    before = weights_of(model)
    with pytest.raises(ValueError, match=r"model_path must be "):
        model.load_model(f"{tmp_path}/model", is_test=True)
    for one, other in zip(before, weights_of(model), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_captures_of_the_first_the_last_and_each_round_under_a_new_mask(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], tmp_path: Any
) -> None:
    rounds = CaptureRounds(first=True, last=True, after_mask_change=True)
    model = make_model(
        prune_end_rate=0.5,
        prune_percent=30,
        optimizer=optim.Adam,
        gradient_capture=GradientCapture(f"{tmp_path}/captures", "bob", rounds),
    )
    history = model.fit(*data, epochs=4, batch_size=BATCH, verbose=0)
    # Three rounds an epoch; steps of pruning end the first three epochs.
    captures = {
        number: load_capture(tmp_path / "captures" / f"round-{number}") for number in (0, 3, 6, 9, 11)
    }
    assert len(list((tmp_path / "captures").iterdir())) == len(captures)
    rates = history.local_history["bob_living_rate"]
    living = [1.0, rates[0], rates[1], rates[2], rates[2]]
    assert [capture.living_rate for capture in captures.values()] == pytest.approx(living)
    assert captures[0].optimizer is not None and captures[0].optimizer["name"] == "Adam"
    assert captures[0].optimizer["groups"][0]["lr"] == LR


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


def test_a_resumed_run_counts_on_and_captures_into_the_same_folder(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], tmp_path: Any
) -> None:
    chosen = GradientCapture(f"{tmp_path}/captures", "bob", CaptureRounds(first=True, last=True))
    fit = {"epochs": 1, "batch_size": BATCH, "verbose": 0}
    model = make_model(gradient_capture=chosen)
    model.fit(*data, **fit)
    model.save_model(f"{tmp_path}/model", is_test=True)
    resumed = make_model(gradient_capture=chosen)
    with pytest.raises(FileExistsError, match="captures/round-0 is there already"):
        resumed.fit(*data, **fit)
    resumed.load_model(f"{tmp_path}/model", is_test=True)
    for _ in range(2):
        resumed.fit(*data, **fit)
    assert {path.name for path in (tmp_path / "captures").iterdir()} == {
        "round-0",
        "round-2",
        "round-5",
        "round-8",
    }


def test_a_capture_by_nobody_is_refused(make_model: Callable[..., FLModel]) -> None:
    with pytest.raises(ValueError, match=r"party must be one of \['alice', 'bob'\], got 'alcie'"):
        make_model(gradient_capture=GradientCapture("/nowhere", "alcie"))


@pytest.mark.parametrize("name", ["x", "batch_size"])
def test_an_argument_that_leaves_a_party_out_is_refused(
    make_model: Callable[..., FLModel], parties: list[Any], name: str
) -> None:
    x, y = data_of(0, 40)
    halves = {parties[0]: (0, 20), parties[1]: (20, 40)}
    alone = {parties[0]: (0, 40)}
    x_, y_ = (
        create_ndarray(array, parts=alone if name == "x" else halves, axis=0, is_label=is_label)
        for array, is_label in ((x, False), (y, True))
    )
    batch_size = {parties[0]: BATCH} if name == "batch_size" else BATCH
    with pytest.raises(ValueError, match=rf"{name} must be of .*\['alice', 'bob'\], got \['alice'\]"):
        make_model().fit(x_, y_, epochs=1, batch_size=batch_size, verbose=0)


@pytest.mark.parametrize(
    ("saved", "own", "message"),
    [
        ({"optimizer": optim.SGD}, {"optimizer": optim.Adam}, r"\('SGD', \[4\]\).*\('Adam', \[4\]\)"),
        ({"mask_scope": "local"}, {"mask_scope": "global"}, "mask_scope='global'"),
    ],
)
def test_a_checkpoint_of_other_settings_changes_nothing(
    make_model: Callable[..., FLModel],
    data: tuple[FedNdarray, FedNdarray],
    tmp_path: Any,
    saved: dict[str, Any],
    own: dict[str, Any],
    message: str,
) -> None:
    model = make_model(**saved)
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    model.save_model(f"{tmp_path}/model", is_test=True)
    other = make_model(**own)
    before = weights_of(other)
    with pytest.raises(ValueError, match=message):
        other.load_model(f"{tmp_path}/model", is_test=True)
    for one, two in zip(before, weights_of(other), strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)


def test_rows_that_rounding_counts_one_batch_too_many_for_are_trained_and_evaluated(
    make_model: Callable[..., FLModel], parties: list[Any]
) -> None:
    assert np.ceil(1 / (10 / 490)) == 50  # though 49 batches of 10 rows are all there are
    x, y = (np.concatenate([part, part]) for part in data_of(0, 490))
    halves = {parties[0]: (0, 490), parties[1]: (490, 980)}
    both = create_ndarray(x, parts=halves, axis=0), create_ndarray(y, parts=halves, axis=0, is_label=True)
    history = make_model().fit(
        *both, validation_data=both, epochs=2, batch_size=10, aggregate_freq=7, verbose=0
    )
    assert len(history.global_history["val_multiclassaccuracy"]) == 2
    assert len(history.local_history["alice_round_payload_bytes"][0]) == 7


def test_noise_for_the_upload_stays_out_of_weights_that_are_not_uploaded(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    shift = SimpleNamespace(model_gdp=lambda weights: [weight + 100 for weight in weights])
    model = make_model(prune_end_rate=0.3, prune_percent=40, dp_strategy=shift)
    model.fit(*data, epochs=1, batch_size=BATCH, aggregate_freq=10, verbose=0)
    masks = masks_of(model)
    private = 0
    for k, arrays in enumerate(weights_of(model)):
        matrices = [array for array in arrays if array.ndim >= 2]
        for array, own, other in zip(matrices, masks[k], masks[1 - k], strict=True):
            alone, both = (own == 1) & (other == 0), (own == 1) & (other == 1)
            private += alone.sum()
            assert (np.abs(array[alone]) < 10).all() and (np.abs(array[both]) > 90).all()
    assert private


def batches_of(rows: int, drop: int = 0) -> Callable[..., tuple[DataLoader, int]]:
    """A builder of batches of so many rows; it says that there are ``drop`` fewer."""

    def build(arrays: list[np.ndarray], stage: str) -> tuple[DataLoader, int]:
        assert stage in ("train", "eval")
        loader = DataLoader(TensorDataset(*map(torch.as_tensor, arrays)), batch_size=rows)
        return loader, len(loader) - drop

    return build


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_may_come_from_a_function_of_the_user(
    make_model: Callable[..., FLModel],
    data: tuple[FedNdarray, FedNdarray],
    parties: list[Any],
    weighted: bool,
) -> None:
    x, y = data
    weights = FedNdarray(
        {
            device: device(lambda n=n: np.linspace(0.5, 2, n, dtype=np.float32))()
            for device, n in zip(parties, ROWS, strict=True)
        },
        PartitionWay.HORIZONTAL,
    )
    own, built = make_model(prune_end_rate=0.5), make_model(prune_end_rate=0.5)
    given = {"sample_weight": weights} if weighted else {}
    how: dict[str, Any] = {"epochs": 2, "verbose": 0, "random_seed": 3, "validation_data": data, **given}
    expected = own.fit(x, y, batch_size=BATCH, **how)
    # Three batches each, as upstream makes of the smaller party's batch size.
    builders = {device: batches_of(size) for device, size in zip(parties, (16, 10), strict=True)}
    history = built.fit(x, y, dataset_builder=builders, **how)
    assert (
        history.global_history["val_multiclassaccuracy"] == expected.global_history["val_multiclassaccuracy"]
    )
    for one, other in zip(weights_of(own), weights_of(built), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    predicted = sf.reveal(built.predict(x, batch_size=BATCH, dataset_builder=builders))
    assert [len(predicted[device]) for device in parties] == list(ROWS)


def test_a_function_that_makes_unequal_numbers_of_batches_is_refused(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], parties: list[Any]
) -> None:
    builders = dict(zip(parties, (batches_of(16), batches_of(10, drop=1)), strict=True))
    with pytest.raises(ValueError, match=r"dataset_builder must make as many.*'alice': 3, 'bob': 2"):
        make_model().fit(*data, epochs=1, verbose=0, dataset_builder=builders)


def test_batches_may_come_from_files_by_a_function_of_the_user(
    make_model: Callable[..., FLModel],
    data: tuple[FedNdarray, FedNdarray],
    parties: list[Any],
    tmp_path: Path,
) -> None:
    files = {device: str(tmp_path / device.party) + ".npz" for device in parties}
    for seed, (path, rows) in enumerate(zip(files.values(), ROWS, strict=True)):
        np.savez(path, *data_of(seed, rows))

    def build(path: str, stage: str) -> tuple[DataLoader, int]:
        with np.load(path) as arrays:
            return batches_of(16 if "alice" in path else 10)(list(arrays.values()), stage)

    own, built = make_model(prune_end_rate=0.5), make_model(prune_end_rate=0.5)
    own.fit(*data, batch_size=BATCH, epochs=2, verbose=0, random_seed=3)
    builders = dict.fromkeys(parties, build)
    built.fit(files, "label", epochs=2, verbose=0, random_seed=3, dataset_builder=builders)
    for one, other in zip(weights_of(own), weights_of(built), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


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


def test_a_function_for_batches_is_needed_at_every_party(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], parties: list[Any]
) -> None:
    with pytest.raises(ValueError, match=r"dataset_builder must have an entry .*, got none for \['bob'\]"):
        make_model().predict(data[0], batch_size=BATCH, dataset_builder={parties[0]: batches_of(16)})


def test_batches_may_come_from_data_frames(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], parties: list[Any]
) -> None:
    def frame(arrays: FedNdarray) -> HDataFrame:
        return HDataFrame(
            {device: partition(device(pd.DataFrame)(part)) for device, part in arrays.partitions.items()}
        )

    builders = {device: batches_of(size) for device, size in zip(parties, (16, 10), strict=True)}
    own, framed = make_model(), make_model()
    for model, (x, y) in ((own, data), (framed, tuple(map(frame, data)))):
        model.fit(x, y, epochs=1, verbose=0, random_seed=3, dataset_builder=builders)
    for one, other in zip(weights_of(own), weights_of(framed), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_a_callback_evaluates_after_the_last_round_is_no_metric_of_training(
    make_model: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    class Evaluates(Callback):
        def on_train_batch_end(self, batch: int) -> None:
            if batch == 2:
                models[0].evaluate(*data, batch_size=BATCH)

    models = [make_model(), make_model()]
    histories = [
        model.fit(*data, epochs=2, batch_size=BATCH, verbose=0, random_seed=3, callbacks=callbacks)
        for model, callbacks in zip(models, ([Evaluates()], None), strict=True)
    ]
    watched, alone = (history.global_history["multiclassaccuracy"] for history in histories)
    assert watched == alone


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
    assert sf.reveal(worker.prune_state()[1]) < living_rate(mask)
    worker.abandon()
    for entry, before in zip(sf.reveal(worker.prune_state()[0]), mask, strict=True):
        np.testing.assert_array_equal(entry, before)
    left = sf.reveal(worker.get_weights())
    living = sum(np.count_nonzero(array) for array in left)
    same = sum(np.count_nonzero((a == b) & (b != 0)) for a, b in zip(start, left, strict=True))
    assert 0.24 * living < same < 0.5 * living
