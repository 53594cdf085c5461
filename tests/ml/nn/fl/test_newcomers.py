"""What a newcomer gets wrong or wonders about first, in one process."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

from secretflow.ml.nn.core.torch import BaseModule, TorchModel, optim_wrapper
from secretflow.ml.nn.fl.history import History
from secretflow.ml.nn.fl.plots import plot_mask
from secretflow.ml.nn.fl.session import FitSession

from .conftest import CLASSES, FEATURES, Task
from .measures import BATCH, STEPS


@pytest.mark.parametrize(
    ("name", "built"),
    [
        ("model_fn", {"model_fn": nn.Linear(FEATURES, 2)}),
        ("loss_fn", {"loss_fn": nn.CrossEntropyLoss()}),
        ("optim_fn", {"optim_fn": optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)}),
        ("metrics\\[0\\]", {"metrics": ["accuracy"]}),
    ],
)
def test_what_has_been_built_already_is_refused_at_once(task: Task, name: str, built: dict[str, Any]) -> None:
    parts = {"model_fn": lambda: nn.Linear(FEATURES, 2), "loss_fn": nn.CrossEntropyLoss}
    with pytest.raises(TypeError, match=f"^{name} must be a class or a function that builds"):
        task.make_model(model=TorchModel(**{**parts, **built}))


@pytest.mark.parametrize("what", ["fit", "evaluate", "predict"])
def test_paths_without_what_reads_them_are_refused_at_once(task: Task, what: str) -> None:
    model, paths = task.make_model(), {party: "rows.csv" for party in task.x.partitions}
    labels = {} if what == "predict" else {"y": "label"}
    with pytest.raises(ValueError, match=r"^dataset_builder must be given with paths.*read_csv"):
        getattr(model, what)(x=paths, **labels)


class Steps(nn.Module):
    """Brings steps that only a BaseModule's are called."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x)

    def training_step(self, batch: Any, batch_idx: int, *_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("called")


class Last(BaseModule, Steps):
    pass


class First(Steps, BaseModule):
    pass


class Configures(nn.Linear):
    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.SGD(self.parameters(), lr=0.1)


def test_steps_that_would_not_be_called_are_refused(task: Task) -> None:
    for net in (Steps, Last):
        with pytest.raises(
            TypeError, match=rf"^model must be a BaseModule .* its training_step .*got {net.__name__};"
        ):
            task.make_model(net=net)
    with pytest.raises(RuntimeError, match="called"):
        task.make_model(net=First).fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)
    with pytest.raises(TypeError, match=r"its configure_optimizers .* got Configures;"):
        task.make_model(model=TorchModel(Configures, nn.CrossEntropyLoss))
    task.make_model(net=Configures)  # an optim_fn is given, so it is not needed


def test_a_schedule_that_ends_elsewhere_says_where(task: Task) -> None:
    with pytest.warns(
        UserWarning, match=r"pruning ends at density 0\.\d+ after 2 epochs, above prune_end"
    ) as caught:
        history = task.make_model(prune_percent=5, prune_end_rate=0.1).fit(
            task.x, task.y, epochs=2, batch_size=BATCH, verbose=0
        )
    said = float(str(caught[0].message).split("density ")[1].split()[0])
    assert said == pytest.approx(history.global_history["density"][-1], abs=1e-3)
    settings = {"prune_schedule": "cubic", "prune_end_epoch": 5}
    with pytest.warns(UserWarning, match="prune_end_epoch=5 is when it would be there"):
        task.make_model(**settings).fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0)


@pytest.mark.parametrize(
    "settings", [{"prune_end_rate": 1.0}, {"prune_schedule": "cubic", "prune_end_epoch": 2}]
)
def test_a_schedule_that_ends_where_it_should_says_nothing(task: Task, settings: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task.make_model(**settings).fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0)


def test_a_fit_that_is_stopped_between_the_last_round_and_its_count_counts_it_later(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, train = task.make_model(), FitSession._train

    def stopped(self: FitSession, rounds: Any) -> None:
        train(self, rounds)
        if rounds[-1].ends_epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(FitSession, "_train", stopped)
    with pytest.raises(KeyboardInterrupt):
        model.fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0)
    monkeypatch.undo()
    model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)
    assert model.epochs_trained() == 2
    whole = task.make_model()
    whole.fit(task.x, task.y, epochs=2, batch_size=BATCH, verbose=0)
    assert [rate.data for rate in model.initialize_masks_prune_rates()[1]] == [
        rate.data for rate in whole.initialize_masks_prune_rates()[1]
    ]


def test_in_a_simulation_no_two_parties_write_one_file(task: Task, tmp_path: Path) -> None:
    model = task.make_model()
    model.fit(task.x, task.y, epochs=1, batch_size=BATCH, verbose=0)
    model.save_model(f"{tmp_path}/run/model")
    model.export_sparse(f"{tmp_path}/run/sparse")
    written = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    parties = [device.party for device in model.device_list]
    assert {f"run/{party}/{name}" for party in parties for name in ("model", "sparse")} <= written
    assert not {"run/model", "run/sparse"} & written
    task.make_model().load_model(f"{tmp_path}/run/model")


def test_the_history_has_the_training_loss_of_each_epoch_and_it_falls(task: Task) -> None:
    history = task.make_model(prune_end_rate=1.0).fit(task.x, task.y, epochs=6, batch_size=BATCH, verbose=0)
    losses = history.global_history["loss"]
    assert len(losses) == 6 and losses[-1] < losses[0]
    own = [history.local_history[f"{device.party}_loss"] for device in task.make_model().device_list]
    assert all(min(values) <= loss <= max(values) for loss, *values in zip(losses, *own, strict=True))


def test_what_evaluate_returns_is_readable(task: Task) -> None:
    metrics, _ = task.make_model().evaluate(task.x, task.y, batch_size=BATCH, return_dict=True)
    for name, metric in metrics.items():
        assert repr(metric).startswith((f"{name}=0.", f"{name}=1."))
        assert 0 <= float(metric) <= 1 and float(metric) == metric.result().numpy()


def test_evaluate_calls_its_metrics_as_the_history_does_before_and_after_training(task: Task) -> None:
    model, held = task.make_model(), (task.x, task.y)
    before = set(model.evaluate(*held, batch_size=BATCH, return_dict=True)[0])
    history = model.fit(*held, validation_data=held, batch_size=BATCH, verbose=0).global_history
    after = set(model.evaluate(*held, batch_size=BATCH, return_dict=True)[0])
    assert before == after == {name for name in history if name.startswith("val_")}


class TestStepsPerEpoch:
    def test_a_batch_has_its_size_at_every_party(self, task: Task) -> None:
        seen: dict[int, list[int]] = {}

        class Watched(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.out = nn.Linear(FEATURES, CLASSES)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if self.training:
                    seen.setdefault(id(self), []).append(len(x))
                return self.out(x)

        loss, optimizer = nn.CrossEntropyLoss, optim_wrapper(optim.SGD, lr=0.1)
        model = task.make_model(
            model=TorchModel(model_fn=Watched, loss_fn=loss, optim_fn=optimizer), prune_end_rate=1.0
        )
        model.fit(task.x, task.y, epochs=1, batch_size=5, steps_per_epoch=7, shuffle=True, verbose=0)
        assert list(seen.values()) == [[5] * 7] * len(model.device_list)

    def test_it_needs_an_order_of_its_own_each_epoch(self, task: Task) -> None:
        with pytest.raises(ValueError, match=r"^shuffle must be True with steps_per_epoch"):
            task.make_model().fit(task.x, task.y, steps_per_epoch=3)
        with pytest.raises(ValueError, match=r"^steps_per_epoch must be None with batch_sampling_rate"):
            task.make_model().fit(task.x, task.y, steps_per_epoch=3, shuffle=True, batch_sampling_rate=0.5)


class TestPictures:
    def test_a_history_draws_itself(self, task: Task, tmp_path: Path) -> None:
        history = task.make_model().fit(
            task.x, task.y, validation_data=(task.x, task.y), epochs=3, batch_size=BATCH, verbose=0
        )
        figure = history.plot()
        metrics, loss, density, upload = figure.axes
        assert [line.get_label() for line in metrics.get_lines()] == ["val_multiclassaccuracy"]
        assert list(metrics.get_lines()[0].get_xdata()) == [STEPS, 2 * STEPS, 3 * STEPS]
        assert [line.get_label() for line in density.get_lines()] == [
            "hidden.weight",
            "out.weight",
            "all layers",
        ]
        assert list(density.get_lines()[-1].get_ydata()) == history.global_history["density"]
        assert list(loss.get_lines()[0].get_ydata()) == history.global_history["loss"]
        assert loss.get_ylim()[0] == 0 and loss.get_ylim()[1] > 1.04 * max(history.global_history["loss"])
        sent = upload.get_lines()[0].get_xdata()
        assert sent[-1] == pytest.approx(sum(history.global_history["payload_bytes"]) / 1e6)
        figure.savefig(tmp_path / "run.png")

    def test_a_history_without_rounds_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^history must be one of fed_avg_w_prune"):
            History(global_history={"density": []}, local_history={}).plot()

    def test_a_mask_is_black_where_weights_live(self) -> None:
        weights = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
        axes = plot_mask(weights, "conv.weight").axes[0]
        assert axes.get_images()[0].get_array().tolist() == [[False, True], [True, True]]
        assert axes.get_title() == "conv.weight density 0.250"
        with pytest.raises(ValueError, match=r"^weights must have two dimensions or more, got 1"):
            plot_mask(torch.ones(3))
