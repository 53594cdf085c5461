"""What can be saved can be loaded, whatever an optimiser holds; what cannot is refused before training."""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import optim

import secretflow as sf
from secretflow.ml.nn.core.torch import optim_wrapper
from secretflow.ml.nn.fl.backend.torch.plain_values import as_plain, from_plain
from secretflow.ml.nn.fl.callbacks import Checkpoint

from .conftest import Task
from .nets_that_replace import Net

BATCH = 20
STEPS = 2


class Recording(optim.SGD):
    """Keeps what it likes with each parameter."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["norms"] = np.append(state.get("norms", np.empty(0)), parameter.norm().item())
                state["steps"] = np.int64(state.get("steps", 0) + 1)


def with_group_entry(value: Any) -> Callable[..., optim.Optimizer]:
    def build(parameters: Any) -> optim.Optimizer:
        return optim.SGD([{"params": list(parameters), "note": value}], lr=0.1)

    return build


OPTIMIZERS = {
    "rate of a NumPy grid": optim_wrapper(optim.SGD, lr=np.logspace(-3, -1, 3)[2]),
    "float32": optim_wrapper(optim.SGD, lr=np.float32(0.1), momentum=np.float16(0.5)),
    "flags": optim_wrapper(optim.SGD, lr=0.1, momentum=0.9, nesterov=np.bool_(True)),
    "pairs": optim_wrapper(optim.Adam, lr=1e-2, betas=(np.float64(0.9), np.float64(0.99))),
    "an array of betas": optim_wrapper(optim.Adam, lr=1e-2, betas=np.array([0.9, 0.99])),
    "tensor": optim_wrapper(optim.Adam, lr=torch.tensor(1e-2)),
    "own state": partial(Recording, lr=0.1, momentum=0.9),
    "nested": with_group_entry({"grid": [np.float64(1.0), (np.arange(3), None)], np.int64(2): "two"}),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_with_checkpoints_goes_on_as_if_it_had_not_stopped(
    task: Task, tmp_path: Path, optimizer: str
) -> None:
    def fit(model: Any, epochs: int, folder: str) -> None:
        callbacks = [Checkpoint(f"{tmp_path}/{folder}/model", is_test=True)]
        model.fit(
            task.x, task.y, epochs=epochs, batch_size=BATCH, callbacks=callbacks, verbose=0, random_seed=3
        )

    whole, stopped, resumed = (task.make_model(optimizer=OPTIMIZERS[optimizer]) for _ in range(3))
    fit(whole, 4, "whole")
    fit(stopped, 2, "stopped")
    resumed.load_model(f"{tmp_path}/stopped/model", is_test=True)
    fit(resumed, 2, "resumed")
    for one, other in zip(whole._workers.values(), resumed._workers.values(), strict=True):
        for a, b in zip(sf.reveal(one.get_weights()), sf.reveal(other.get_weights()), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


class Thawing(Net):
    """Trains its head alone, and from the second epoch on its body too, slower."""

    def __init__(self) -> None:
        super().__init__()
        self.a.requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int, *args: Any, **kwargs: Any) -> Any:
        if batch_idx == STEPS:
            self.a.requires_grad_(True)
            self._optimizers[0].add_param_group({"params": list(self.a.parameters()), "lr": 0.02})
        return super().training_step(batch, batch_idx, *args, **kwargs)


def head_alone(parameters: Any) -> optim.Optimizer:
    return optim.Adam([p for p in parameters if p.requires_grad], lr=0.05)


@pytest.mark.parametrize("options", [{}, {"withhold_percent": 20.0}], ids=["uploads all", "withholds"])
@pytest.mark.parametrize("saved_after", [1, 2])
def test_what_was_unfrozen_while_it_trained_goes_on_after_it_was_loaded(
    task: Task, tmp_path: Path, saved_after: int, options: dict[str, Any]
) -> None:
    def fit(model: Any, epochs: int) -> None:
        model.fit(task.x, task.y, epochs=epochs, batch_size=BATCH, verbose=0, random_seed=3)

    whole, stopped, resumed = (
        task.make_model(net=Thawing, optimizer=head_alone, **options) for _ in range(3)
    )
    fit(whole, 3)
    fit(stopped, saved_after)
    stopped.save_model(f"{tmp_path}/model", is_test=True)
    fit(stopped, 3 - saved_after)  # a model that has gone on can go back, too
    for model in (resumed, stopped):
        model.load_model(f"{tmp_path}/model", is_test=True)
        fit(model, 3 - saved_after)
        for one, other in zip(whole._workers.values(), model._workers.values(), strict=True):
            for a, b in zip(sf.reveal(one.get_weights()), sf.reveal(other.get_weights()), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-6)
    assert stopped.epochs_trained() == 3


def test_a_program_that_builds_other_groups_is_told_apart(task: Task, tmp_path: Path) -> None:
    thawed = task.make_model(net=Thawing, optimizer=head_alone)
    thawed.fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0)
    thawed.save_model(f"{tmp_path}/model", is_test=True)
    other = task.make_model(net=Net, optimizer=head_alone)
    with pytest.raises(
        ValueError, match=r"optimisers and their groups were .*\[2, 2\].*, here they are .*\[4\]"
    ):
        other.load_model(f"{tmp_path}/model", is_test=True)


class Kind(enum.Enum):
    A = 1


class Schedule:
    pass


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Schedule(), "Schedule"),
        (Kind.A, "Kind"),
        (print, "builtin_function_or_method"),
        ([1, {"a": partial(print)}], "functools.partial"),
        (np.array([object()]), "numpy.ndarray"),
        (np.datetime64("2024-01-01"), "numpy.datetime64"),
        (np.longdouble("0.1"), "longdouble"),
        (np.clongdouble(1j), "clongdouble"),
        ({np.longdouble("0.1"): 1}, "longdouble"),
        (np.zeros(2, np.longdouble), "numpy.ndarray of float128"),
        (np.zeros(2, ">f4"), "numpy.ndarray of >f4"),
        (np.array(["a"]), "numpy.ndarray of <U1"),
    ],
    ids=str,
)
def test_what_no_checkpoint_can_hold_is_refused_before_training(
    task: Task, tmp_path: Path, value: Any, named: str
) -> None:
    model = task.make_model(optimizer=with_group_entry(value))
    message = rf"optimizer_state_dict\['param_groups'\]\[0\]\['note'\].* must be .* got a .*{named}"
    with pytest.raises(ValueError, match=message):
        model.fit(
            task.x,
            task.y,
            epochs=2,
            batch_size=BATCH,
            callbacks=[Checkpoint(f"{tmp_path}/run/model")],
            verbose=0,
        )
    assert model.epochs_trained() == 0
    with pytest.raises(ValueError, match=message):
        model.save_model(f"{tmp_path}/model", is_test=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


ARRAYS = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_]), hnp.array_shapes(min_dims=0)
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text()
    | ARRAYS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | inner.map(lambda v: {1: v})
    ),
    max_leaves=8,
)


def test_a_rate_that_no_file_can_hold_is_refused_by_name(task: Task, tmp_path: Path) -> None:
    model = task.make_model(optimizer=optim_wrapper(optim.SGD, lr=np.longdouble("0.1")))
    with pytest.raises(ValueError, match=r"optimizer_state_dict.*\['lr'\] must be .* got a numpy.longdouble"):
        model.save_model(f"{tmp_path}/model", is_test=True)
    assert not list(tmp_path.rglob("*"))


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return (
            type(one) is type(other)
            and len(one) == len(other)
            and all(equal(a, b) for a, b in zip(one, other, strict=True))
        )
    return type(one) is type(other) and one == other


@given(PLAIN)
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "value"
    torch.save(as_plain(value, "value"), path)
    assert equal(from_plain(torch.load(path, weights_only=True)), value)
