"""Callbacks for ``FLModel.fit``: checkpoints after epochs, and curves in TensorBoard.

With ``fed_avg_w_prune`` several rounds are run together, for speed. ``on_train_batch_begin`` and
``on_train_batch_end`` are called for each of them, in order, once they have been run; only the beginning of
the first is told before, where the aggregator has no ``min_survivors``. A callback that has to see or change
the model between two rounds says so with the attribute ``needs_model_each_round = True``; then each round is
run by itself. When a round fails, callbacks hear of those that went well before ``fit`` raises the error;
over the network, and with ``min_survivors``, they do not hear of those that were run together with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from secretflow import _validate
from secretflow.device import PYU, reveal, wait
from secretflow.errors import ArgumentError
from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.fl.crew import answers_within
from secretflow.ml.nn.fl.numbers_of import numbers_of
from secretflow.ml.nn.fl.party_paths import path_of


def needs_model_each_round(callback: Callback) -> bool:
    """Whether a callback has to see the model between two rounds: its attribute of this name, or False."""
    return bool(getattr(callback, "needs_model_each_round", False))


def _told(
    callback: Callback, values: Mapping[PYU, Any], from_all: Callable[[dict[PYU, Any]], Any] = reveal
) -> Any:
    """What workers tell a callback: all of them, or those who are there in a fit that can lose parties."""
    deadline = callback.params.get("round_deadline")
    if deadline is None:
        return from_all(dict(values))
    told = answers_within(deadline / 2, values)  # the time of a step runs, and they have to train in it
    if late := [device.party for device in values if device not in told]:
        logging.warning(
            "%s: no answer within %g seconds from %s", type(callback).__name__, deadline / 2, ", ".join(late)
        )
    return told


class Checkpoint(Callback):
    """Saves every party's model, optimisers and masks to its own disk, so that a stopped run can go on.

    A checkpoint takes its place at once or not at all, and the one before it is kept as ``<name>.previous``:
    if the run is stopped when some parties have saved and others have not, ``FLModel.load_model`` takes the
    newest epoch that all parties have.

    Args:
        path: folder and name, as ``FLModel.save_model`` takes them.
        every: epochs from one checkpoint to the next, at least 1.
        is_test: adds the party's name to the folder, as a simulation does by itself.

    Raises:
        TypeError: ``path`` is no path, or ``is_test`` neither True nor False.
        ValueError: ``path`` has no folder or ``every`` is below 1.

    Examples:
        >>> model.fit(x, y, epochs=10, random_seed=1, callbacks=[Checkpoint("run/model")])
        >>> # later, in another process
        >>> model.load_model("run/model")
        >>> model.fit(x, y, epochs=10 - model.epochs_trained(), random_seed=1)
    """

    def __init__(self, path: str | PathLike[str], every: int = 1, is_test: bool = False) -> None:
        super().__init__()
        _validate.instance("path", path, (str, PathLike), "'folder/name'")
        path = fspath(path)
        _validate.flag("is_test", is_test)
        has_both = bool(Path(path).name) and "/" in path and not path.endswith("/")
        _validate.check(has_both, "path", path, "'folder/name'")
        _validate.integer("every", every, at_least=1)
        self._path = Path(path)
        self._every = every
        self._is_test = is_test

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuses what could not be saved, before anything is trained.

        Raises:
            ValueError: an optimiser has settings that no checkpoint can hold.
        """
        assert self._workers is not None  # as CallbackList calls it
        _told(self, {device: worker.check_saves() for device, worker in self._workers.items()})

    def on_epoch_end(self, epoch: int | None = None, logs: Any = None) -> None:
        """Saves, if it is time."""
        assert epoch is not None  # as CallbackList calls it
        if (epoch + 1) % self._every == 0:
            self.save()

    def save(self) -> None:
        """Saves, whether it is time or not."""
        assert self._workers is not None  # as CallbackList calls it
        saved = {}
        for device, worker in self._workers.items():
            path = path_of(device, str(self._path), self._is_test)
            saved[device] = worker.save_model(path, keep_previous=True)
        _told(self, saved, wait)


class TensorBoard(Callback):
    """Writes every number of the history after each epoch, for TensorBoard to draw.

    Columns of all parties together are under ``global/<name>``, those of one party under
    ``local/<party>_<name>``; the step is the number of the epoch since the model was made, from 1, so a
    resumed run goes on where it was stopped. Each number of an array, such as the accuracy of each class, has
    a curve of its own, ``global/<name>/<index>``; arrays of more than 100 numbers have none.

    Args:
        log_dir: folder for the event files.

    Raises:
        TypeError: ``log_dir`` is no path.
        ImportError: tensorboard is not installed.
        ValueError: when training begins, with another strategy than ``fed_avg_w_prune``, whose history no
            callback sees.
    """

    def __init__(self, log_dir: str | PathLike[str]) -> None:
        super().__init__()
        _validate.instance("log_dir", log_dir, (str, PathLike), "a path")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoard needs the package tensorboard: pip install 'secretflow-prune[tensorboard]'"
            ) from error
        self._make_writer = lambda: SummaryWriter(str(log_dir))
        self._writer: Any = None
        self._written: dict[str, int] = {}
        self._trained = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens an event file."""
        if "history" not in self.params:
            raise ArgumentError("strategy must be 'fed_avg_w_prune' with TensorBoard, got another one")
        told = _told(self, {device: worker.epochs_trained() for device, worker in self._workers.items()})
        self._trained = next(iter(told.values()))
        self._writer = self._make_writer()
        self._written = {}

    def on_epoch_end(self, epoch: int | None = None, logs: Any = None) -> None:
        """Writes the newest number of each column that has one of this epoch."""
        assert epoch is not None  # as CallbackList calls it
        history = self.params["history"]
        for place, columns in (("global", history.global_history), ("local", history.local_history)):
            for name, values in columns.items():
                tag = f"{place}/{name}"
                if len(values) > self._written.get(tag, 0):
                    for indices, number in numbers_of(values[-1]).items():
                        curve = "/".join([tag, *map(str, indices)])
                        self._writer.add_scalar(curve, number, self._trained + epoch + 1)
                    self._written[tag] = len(values)
        self._writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the event file."""
        self._writer.close()
