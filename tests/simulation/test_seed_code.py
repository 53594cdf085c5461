"""The users' first code, as the project's founding document prints it; data loading and epochs differ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F
from torchmetrics import Accuracy, Precision

import secretflow as sf
from experiments.data import load_images, share_out
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.fl.backend.torch.strategy.fed_avg_w_prune import mask_model, prune_by_percentile
from secretflow.ml.nn.fl.utils import metric_wrapper, optim_wrapper
from secretflow.ml.nn.utils import BaseModule, TorchModel
from secretflow.security.aggregation import PlainAggregator, SecurePruneAggregator

ROWS = 600


class ConvNet(BaseModule):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, kernel_size=3)
        self.fc_in_dim = 192
        self.fc = nn.Linear(self.fc_in_dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 3))
        x = x.view(-1, self.fc_in_dim)
        return F.softmax(self.fc(x), dim=1)


def seed_model() -> TorchModel:
    loss_fn = nn.CrossEntropyLoss
    optim_fn = optim_wrapper(optim.Adam, lr=1e-2)
    return TorchModel(
        model_fn=ConvNet,
        loss_fn=loss_fn,
        optim_fn=optim_fn,
        metrics=[
            metric_wrapper(Accuracy, task="multiclass", num_classes=10, average="micro"),
            metric_wrapper(Precision, task="multiclass", num_classes=10, average="micro"),
        ],
    )


def seed_data(alice: Any, bob: Any) -> Any:
    images = load_images().first(ROWS)
    parts = {alice: 0.4, bob: 0.6}
    return share_out(images.x_train, images.y_train, parts), share_out(images.x_test, images.y_test, parts)


def test_the_plain_run(ray_devices: SimpleNamespace) -> None:
    alice, bob, charlie = ray_devices.alice, ray_devices.bob, ray_devices.carol
    (train_data, train_label), (test_data, test_label) = seed_data(alice, bob)
    model_def = seed_model()
    device_list = [alice, bob]
    server = charlie

    aggregator = PlainAggregator(alice)
    fl_model = FLModel(
        server=server,
        device_list=device_list,
        model=model_def,
        aggregator=aggregator,
        strategy="fed_avg_w",
        backend="torch",
        wp_strategy=False,
        random_seed=1,  # eight steps do not always get far from chance
    )
    history = fl_model.fit(
        train_data,
        train_label,
        validation_data=(test_data, test_label),
        epochs=1,
        batch_size=32,
        aggregate_freq=1,
    )
    assert len(history.global_history["multiclassaccuracy"]) == 1
    assert history.global_history["val_multiclassaccuracy"][-1] > 0.2


def test_the_pruned_run(ray_devices: SimpleNamespace) -> None:
    alice, bob, server = ray_devices.alice, ray_devices.bob, ray_devices.carol
    (train_data, train_label), (test_data, test_label) = seed_data(alice, bob)
    model_def = seed_model()
    device_list = [alice, bob]

    aggregator = SecurePruneAggregator(server, [alice, bob])
    fl_model_prune = FLModel(
        server=server,
        device_list=device_list,
        model=model_def,
        aggregator=aggregator,
        strategy="fed_avg_w_prune",
        backend="torch",
        wp_strategy=True,
        prune_end_rate=0.1,
        prune_percent=5,
        random_seed=1,  # sixteen steps do not always get far from chance
    )
    history_prune = fl_model_prune.fit(
        train_data,
        train_label,
        validation_data=(test_data, test_label),
        epochs=2,
        batch_size=32,
        aggregate_freq=1,
    )
    assert len(history_prune.global_history["multiclassaccuracy"]) == 2
    assert history_prune.global_history["val_multiclassaccuracy"][-1] > 0.3
    assert history_prune.global_history["density"] == pytest.approx([0.95, 0.95**2], abs=1e-3)


def test_the_parts_can_be_called_by_their_names(devices: SimpleNamespace) -> None:
    alice, bob, server = devices.alice, devices.bob, devices.carol
    (train_data, train_label), _ = seed_data(alice, bob)
    model = FLModel(
        server=server,
        device_list=[alice, bob],
        model=seed_model(),
        aggregator=SecurePruneAggregator(server, [alice, bob]),
        strategy="fed_avg_w_prune",
        backend="torch",
        wp_strategy=True,
        prune_end_rate=0.1,
        prune_percent=20,
    )
    init_mask, init_prune_rate = model.initialize_masks_prune_rates()
    initial_weight = model.initialize_weights(init_mask)
    worker = model._workers[alice]
    mask = sf.reveal(worker.make_prune_mask())
    assert [entry.shape for entry in mask] == [(3, 1, 3, 3), (10, 192)]

    model._handle_data(train_data, train_label, batch_size=32)
    weights, samples, new_mask, new_rate = worker.train_step_with_prune(
        initial_weight[alice], 0, 2, init_mask[0], init_prune_rate[0], True, refresh_data=True
    )
    assert sf.reveal(samples) == 2 * 32
    assert sf.reveal(new_rate) == pytest.approx(0.8, abs=1e-3)
    for entry, weight in zip(sf.reveal(new_mask), sf.reveal(weights)[::2], strict=True):
        assert np.array_equal(entry != 0, weight != 0)

    clients_weights = [worker.get_weights() for worker in model._workers.values()]
    average = sf.reveal(model._aggregator.average(clients_weights, prune_mask=init_mask, axis=0))
    expected = np.mean([sf.reveal(weights)[2] for weights in clients_weights], axis=0)
    np.testing.assert_allclose(average[2], expected, atol=1e-6)


def test_a_model_can_be_masked_and_pruned_by_hand() -> None:
    net = ConvNet()
    mask = [np.ones((3, 1, 3, 3), np.uint8), np.ones((10, 192), np.uint8)]
    mask[0][0] = 0
    before = {name: value.clone() for name, value in net.state_dict().items()}
    mask_model(net, mask, before)
    assert not net.conv1.weight[0].any()
    assert torch.equal(net.conv1.weight[1:], before["conv1.weight"][1:])
    assert torch.equal(net.conv1.bias, before["conv1.bias"])

    pruned = prune_by_percentile(net, mask, 5)
    assert [int(entry.sum()) for entry in pruned] == [18, 1824]
    assert int((net.fc.weight != 0).sum()) == 1824
