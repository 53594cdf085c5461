"""Arguments that cannot be are refused by name before any worker starts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from secretflow.ml.nn import FLModel
from secretflow.ml.nn.fl import GradientCapture
from secretflow.security.aggregation import PlainAggregator, SecurePruneAggregator

from .conftest import CLASSES, FEATURES, Mlp, Task, model_def
from .measures import BATCH


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
