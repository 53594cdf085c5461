"""No party trains on weights from outside that would sort its rows into bins."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

import secretflow as sf
from secretflow.data.ndarray import FedNdarray
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.ml.nn.fl.attacks import PublicRows, imprint_weights
from secretflow.ml.nn.fl.worker.catching_up import take_average
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.aggregation.secagg.dropouts.last_average import LastAverage
from secretflow.utils.simulation.data.ndarray import create_ndarray

from ..conftest import CLASSES, FEATURES, model_def
from .conftest import data_of

ROWS, BATCH = 48, 16
REFUSED = r"weights that come to alice must sort no rows into bins.* layer 'body.0' with 32 of 32 units"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def chosen_by_a_server() -> dict[str, torch.Tensor]:
    public = PublicRows(torch.from_numpy(data_of(9, 500)[0]), torch.zeros(500).long())
    return imprint_weights(Net, Net().state_dict(), public)


@pytest.fixture
def make(devices: SimpleNamespace) -> Callable[..., FLModel]:
    def made(**options: Any) -> FLModel:
        parties = [devices.alice, devices.bob, devices.carol]
        return FLModel(
            server=devices.davy,
            device_list=parties,
            model=model_def(Net, optim_wrapper(optim.SGD, lr=0.1)),
            strategy="fed_avg_w_prune",
            backend="torch",
            random_seed=5,
            **{"aggregator": SecurePruneAggregator(devices.davy, parties), **options},
        )

    return made


@pytest.fixture
def data(devices: SimpleNamespace) -> tuple[FedNdarray, FedNdarray]:
    parties = devices.alice, devices.bob, devices.carol
    parts = {party: (k * ROWS, (k + 1) * ROWS) for k, party in enumerate(parties)}
    x, y = data_of(0, 3 * ROWS)
    return create_ndarray(x, parts=parts, axis=0), create_ndarray(y, parts=parts, axis=0, is_label=True)


def worker_of(model: FLModel, number: int) -> Any:
    """The object that is an actor elsewhere, with which its party can do as it likes."""
    return list(model._workers.values())[number].data._actor_handle


def lead_to(model: FLModel, target: dict[str, torch.Tensor]) -> None:
    """Has carol upload what brings the average of all three to a target, for she knows the other two."""
    own = {
        name: 3 * value - 2 * worker_of(model, 0).model.state_dict()[name] for name, value in target.items()
    }
    worker_of(model, 2).model.load_state_dict(own)


def test_a_party_does_not_begin_with_an_average_that_another_has_brought_to_bins(
    make: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    model = make()
    lead_to(model, chosen_by_a_server())
    before = sf.reveal(model._workers[next(iter(model._workers))].get_weights())
    with pytest.raises(ValueError, match=REFUSED):
        model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    for one, other in zip(worker_of(model, 0).get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("bits", [None, 8])
def test_nor_with_bins_that_all_have_from_elsewhere(
    devices: SimpleNamespace,
    make: Callable[..., FLModel],
    data: tuple[FedNdarray, FedNdarray],
    bits: int | None,
) -> None:
    parties = [devices.alice, devices.bob, devices.carol]
    model, target = (
        make(aggregator=SecurePruneAggregator(devices.davy, parties, upload_bits=bits)),
        chosen_by_a_server(),
    )
    for number in range(3):
        worker_of(model, number).model.load_state_dict(target)
    with pytest.raises(ValueError, match=REFUSED):
        model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)


def test_a_party_does_not_train_on_a_later_average_that_another_has_brought_to_bins(
    make: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray]
) -> None:
    model = make(prune_end_rate=1.0)
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    trained = worker_of(model, 0).get_weights()
    target, carol = chosen_by_a_server(), worker_of(model, 2)
    begun = carol._training.withhold

    def lie() -> None:
        """In the place of what she has trained; the honest two have come a little way from the average."""
        begun()
        for name, value in carol.model.named_parameters():
            value.data.copy_(3 * target[name] - 2 * value.data)

    carol._training.withhold = lie
    with pytest.raises(ValueError, match=r"must sort no rows into bins.* layer 'body.0'"):
        model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    for one, other in zip(worker_of(model, 0).get_weights(), trained, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_what_a_user_accepts_is_trained_with_a_warning(
    make: Callable[..., FLModel], data: tuple[FedNdarray, FedNdarray], caplog: pytest.LogCaptureFixture
) -> None:
    model = make(accept_degenerate_layers=True)
    lead_to(model, chosen_by_a_server())
    model.fit(*data, epochs=1, batch_size=BATCH, verbose=0)
    assert "weights that come to alice must sort no rows into bins" in caplog.text


def test_neither_a_file_nor_weights_that_are_set_bring_in_bins(
    make: Callable[..., FLModel], tmp_path: Any
) -> None:
    model = make(accept_degenerate_layers=True)
    target = chosen_by_a_server()
    for number in range(3):
        worker_of(model, number).model.load_state_dict(target)
    model.save_model(f"{tmp_path}/model", is_test=True)
    careful = make()
    before = worker_of(careful, 0).get_weights()
    with pytest.raises(ValueError, match=REFUSED):
        careful.load_model(f"{tmp_path}/model", is_test=True)
    with pytest.raises(ValueError, match=REFUSED):
        worker_of(careful, 0).set_weights([value.numpy() for value in target.values()])
    for one, other in zip(worker_of(careful, 0).get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("stretched", [True, False])
def test_who_comes_back_takes_no_average_of_bins_from_another_party(
    make: Callable[..., FLModel], stretched: bool
) -> None:
    training = worker_of(make(), 0)._training
    before = [array.copy() for array in training.arrays()]
    came = [value.numpy().copy() for value in chosen_by_a_server().values()]
    if stretched:
        came[0] = came[0][:1]
    with pytest.raises(ValueError, match="of the model's shapes" if stretched else REFUSED):
        take_average(training, LastAverage(came, [True] * len(came)), keeps_own=True)
    for one, other in zip(training.arrays(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_of_another_type_of_numbers_is_none_of_this_model(
    make: Callable[..., FLModel], tmp_path: Any
) -> None:
    model = make()
    model.save_model(f"{tmp_path}/model", is_test=True)
    path = tmp_path / "alice" / "model"
    content = torch.load(path)
    content["model_state_dict"]["body.0.weight"] = content["model_state_dict"]["body.0.weight"].double()
    torch.save(content, path)
    with pytest.raises(ValueError, match="it holds another model"):
        model.load_model(f"{tmp_path}/model", is_test=True)
