"""Checkpoints after epochs, also of a killed run, and curves in TensorBoard."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn, optim
from torchmetrics import Accuracy
from torchmetrics.classification import MulticlassConfusionMatrix

import secretflow as sf
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.ml.nn.fl.callbacks import Checkpoint, TensorBoard
from secretflow.ml.nn.fl.sparse_model import load_sparse
from secretflow.security.aggregation import SecurePruneAggregator

from .conftest import Mlp, Task, model_def

RUN = Path(__file__).with_name("resumed_run.py")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(RUN), *arguments], capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kill", "epochs"),
    [
        (["--kill-after", "2"], {"alice": 2, "bob": 2}),
        # The sixth save is bob's of the third epoch; alice has hers.
        (["--kill-in-save", "6"], {"alice": 3, "bob": 2}),
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, kill: list[str], epochs: dict[str, int]
) -> None:
    whole = run(str(tmp_path / "whole"))
    killed = run(str(tmp_path / "killed"), *kill)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    saved_epochs = {name: torch.load(tmp_path / "killed" / name / "model")["epoch"] for name in epochs}
    assert saved_epochs == epochs
    resumed = run(str(tmp_path / "killed"), "--resume")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    curves, rest = (json.loads(done.stdout.splitlines()[-1]) for done in (whole, resumed))
    for name in ("val_multiclassaccuracy", "density"):
        assert len(curves[name]) == 5 and len(rest[name]) == 3
        np.testing.assert_allclose(rest[name], curves[name][2:], atol=1e-6)
    for party in ("alice", "bob"):
        saved = [
            torch.load(tmp_path / folder / party / "model")["model_state_dict"]
            for folder in ("whole", "killed")
        ]
        for name, value in saved[0].items():
            torch.testing.assert_close(saved[1][name], value, rtol=0, atol=1e-5)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(("path", "every"), [("model", 1), ("folder/", 1), ("a/b", 0), ("a/b", 1.5)])
def test_a_bad_checkpoint_setting_is_named(path: str, every: Any) -> None:
    with pytest.raises(ValueError, match=r"(path|every) must be .*, got "):
        Checkpoint(path, every)


def test_a_checkpoint_is_written_every_so_many_epochs(task: Task, tmp_path: Path) -> None:
    model = task.make_model()
    model.fit(
        *(task.x, task.y),
        epochs=3,
        batch_size=8,
        verbose=0,
        callbacks=Checkpoint(f"{tmp_path}/model", every=2, is_test=True),
    )
    for party in ("alice", "bob"):
        assert torch.load(tmp_path / party / "model")["epoch"] == 2


def test_the_set_that_all_parties_have_outlives_a_second_stop(task: Task, tmp_path: Path) -> None:
    path, checkpoint = f"{tmp_path}/model", Checkpoint(f"{tmp_path}/model", is_test=True)
    fit = {"x": task.x, "y": task.y, "batch_size": 8, "verbose": 0, "random_seed": 3}
    bob = tmp_path / "bob"
    task.make_model().fit(epochs=2, callbacks=checkpoint, **fit)
    stopped = {file.name: file.read_bytes() for file in bob.iterdir()}
    assert set(stopped) == {"model", "model.previous"}
    for _ in range(2):
        model = task.make_model()
        model.load_model(path, is_test=True)
        assert model.epochs_trained() == 2
        model.fit(epochs=1, callbacks=checkpoint, **fit)
        # Bob never came to save the third epoch.
        for name, content in stopped.items():
            (bob / name).write_bytes(content)
    (
        tmp_path / "alice" / "model"
    ).unlink()  # stopped between moving the old one aside and the new one's place
    model = task.make_model()
    model.load_model(path, is_test=True)
    assert model.epochs_trained() == 2
    with pytest.raises(FileNotFoundError):
        model.load_model(f"{tmp_path}/nothing", is_test=True)


def test_tensorboard_has_every_number_of_the_history(task: Task, tmp_path: Path) -> None:
    history = task.make_model().fit(
        *(task.x, task.y),
        validation_data=(task.x, task.y),
        validation_freq=2,
        epochs=3,
        batch_size=8,
        verbose=0,
        callbacks=[TensorBoard(tmp_path)],
    )
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    expected = {f"global/{name}": values for name, values in history.global_history.items()}
    expected.update({f"local/{name}": values for name, values in history.local_history.items()})
    expected = {name: values for name, values in expected.items() if not isinstance(values[0], list)}
    assert set(events.Tags()["scalars"]) == set(expected)
    for name, values in expected.items():
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == ([1, 2, 3] if len(values) == 3 else [1, 3])
        np.testing.assert_allclose([scalar.value for scalar in scalars], np.array(values, float), rtol=1e-6)


def vectors() -> TorchModel:
    """A net with metrics that are a number, a vector and a matrix."""
    metrics = [
        metric_wrapper(Accuracy, task="multiclass", num_classes=3),
        metric_wrapper(Accuracy, task="multiclass", num_classes=3, average="none"),
        metric_wrapper(MulticlassConfusionMatrix, num_classes=3),
    ]
    return TorchModel(Mlp, nn.CrossEntropyLoss, optim_wrapper(optim.SGD, lr=0.1), metrics)


def test_metrics_of_several_numbers_are_drawn_number_by_number(
    task: Task, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    history = task.make_model(model=vectors()).fit(
        task.x, task.y, epochs=2, batch_size=8, verbose=1, callbacks=[TensorBoard(tmp_path)]
    )
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    by_class = history.global_history["multiclassaccuracy_2"]
    for k in range(3):
        values = [scalar.value for scalar in events.Scalars(f"global/multiclassaccuracy_2/{k}")]
        np.testing.assert_allclose(values, [epoch[k] for epoch in by_class])
    matrix = history.global_history["multiclassconfusionmatrix"]
    assert events.Scalars("global/multiclassconfusionmatrix/2/1")[-1].value == matrix[-1][2, 1]
    assert "local/alice_train_multiclassaccuracy_2/0" in events.Tags()["scalars"]
    labels = [line.get_label() for line in history.plot().axes[0].get_lines()]
    assert labels == ["multiclassaccuracy", *(f"multiclassaccuracy_2[{k}]" for k in range(3))]
    shown = capfd.readouterr().err
    assert "multiclassaccuracy=" in shown and "confusionmatrix=" not in shown


def test_tensorboard_goes_on_where_a_run_was_stopped(task: Task, tmp_path: Path) -> None:
    model = task.make_model()
    for _ in range(2):
        model.fit(task.x, task.y, epochs=1, batch_size=8, verbose=0, callbacks=[TensorBoard(tmp_path)])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [scalar.step for scalar in events.Scalars("global/density")] == [1, 2]


def test_tensorboard_names_the_strategy_it_needs(
    task: Task, devices: SimpleNamespace, tmp_path: Path
) -> None:
    parties = [devices.alice, devices.bob]
    model = FLModel(
        server=devices.carol,
        device_list=parties,
        model=model_def(),
        aggregator=SecurePruneAggregator(devices.carol, parties),
        strategy="fed_avg_w",
        backend="torch",
    )
    with pytest.raises(ValueError, match="fed_avg_w_prune"):
        model.fit(task.x, task.y, epochs=1, batch_size=8, verbose=0, callbacks=[TensorBoard(tmp_path)])


def test_the_exported_model_is_the_trained_one_and_shrinks_with_the_density(
    task: Task, tmp_path: Path
) -> None:
    model = task.make_model(prune_end_rate=0.1)
    model.fit(task.x, task.y, epochs=5, batch_size=8, verbose=0)
    model.export_sparse(f"{tmp_path}/model", is_test=True)
    for party, worker in model._workers.items():
        back = load_sparse(tmp_path / party.party / "model")
        trained = sf.reveal(worker.get_weights())
        for (name, value), array in zip(back.items(), trained, strict=True):
            np.testing.assert_array_equal(value.numpy(), array, err_msg=name)
