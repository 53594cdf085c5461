"""One training run, of upstream or of the fork: what :mod:`benchmarks.training` starts, times and compares.

It uses nothing but names that upstream has as well, so that the same file runs in both environments::

    python benchmarks/training_job.py '{"strategy": "fed_avg_w", ...}' report.json
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        aggregator: name of a class in ``secretflow.security.aggregation``.
        strategy: ``FLModel``'s.
        options: further arguments of ``FLModel``.
        aggregator_options: further arguments of the aggregator.
        net: name of a class in ``experiments/dgl_utils.py`` or ``benchmarks/large_net.py``, or ``wide-N``:
            about N weights; behind ``idle-`` its steps of training do nothing, so that a round is aggregation
            alone.
        images: path of an ``.npz`` with ``x`` (uint8, (rows, 28, 28)) and ``y`` (uint8, (rows,)).
        learning_rate: of the optimizer.
        optimizer: name of a class in ``torch.optim``.
        parties: how many train, at least 2; a further one is the server.
        rounds: rounds of an epoch.
        epochs: epochs, at least 1; the first one warms up.
        aggregate_freq: steps between two averages.
        batch_sizes: rows of each party's batch; the last one is also that of the parties behind it.
        image_shape: channels, height and width that the net takes; each channel is the image, with zeros to
            its right and below.
        data_first: has the parties' rows ready before the model is made.
        one_process: SecretFlow's debug mode: all parties in this process, one after the other.
        cores: how many Ray is told of; 0 is SecretFlow's choice, 32 or more.
        processor_time: an epoch's seconds are those of this process on the processor, not the clock's.
    """

    aggregator: str
    strategy: str
    images: str
    options: dict[str, Any] = field(default_factory=dict)
    aggregator_options: dict[str, Any] = field(default_factory=dict)
    net: str = "ConvNet"
    learning_rate: float = 1e-2
    optimizer: str = "Adam"
    parties: int = 2
    rounds: int = 200
    epochs: int = 3
    aggregate_freq: int = 1
    batch_sizes: Sequence[int] = (32,)
    image_shape: tuple[int, int, int] = (1, 28, 28)
    data_first: bool = False
    one_process: bool = False
    cores: int = 0
    processor_time: bool = False

    def batch_size(self, party: int) -> int:
        """Rows of a party's batch."""
        return self.batch_sizes[min(party, len(self.batch_sizes) - 1)]


def main() -> None:
    """Runs the job named on the command line and writes its report."""
    job = Job(**json.loads(sys.argv[1]))
    report = run(job)
    Path(sys.argv[2]).write_text(json.dumps(report), encoding="utf-8")


def run(job: Job) -> dict[str, Any]:
    """Trains.

    Returns:
        ``model_began``: point of time before aggregator and model were made; ``ended``: point of time when
        the last epoch was over; ``epochs``: seconds of each epoch; ``memory``: after each epoch, resident
        bytes of each process; ``history``: what ``fit`` recorded of all parties together.
    """
    import secretflow as sf

    names = [f"party{k}" for k in range(job.parties)]
    where: dict[str, Any] = {"address": "local", "log_to_driver": False, "num_cpus": job.cores or None}
    if job.one_process:
        where = {"debug_mode": True}
    sf.init([*names, "server"], logging_level="error", **where)
    try:
        return train(job, [sf.PYU(name) for name in names], sf.PYU("server"))
    finally:
        sf.shutdown()


def train(job: Job, parties: list[Any], server: Any) -> dict[str, Any]:
    """Builds model and data, and fits."""
    from ray import cloudpickle
    from torch import nn, optim
    from torchmetrics import Accuracy, Precision

    import secretflow.security.aggregation as aggregation
    from secretflow.device import wait
    from secretflow.ml.nn import FLModel
    from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper

    nets = load_nets("benchmarks/large_net.py" if job.net == "ResNet18" else "experiments/dgl_utils.py")
    # The workers cannot import this module by name: it is no part of upstream's environment.
    cloudpickle.register_pickle_by_value(nets)
    kind = {"task": "multiclass", "num_classes": nets.CLASSES, "average": "micro"}
    definition = TorchModel(
        model_fn=_builder(job.net, nets),
        loss_fn=nn.CrossEntropyLoss,
        optim_fn=optim_wrapper(getattr(optim, job.optimizer), lr=job.learning_rate),
        metrics=[metric_wrapper(Accuracy, **kind), metric_wrapper(Precision, **kind)],
    )
    if job.data_first:
        x, y = _data(job, parties)
        wait([*x.partitions.values(), *y.partitions.values()])
    model_began = time.time()
    # A plain aggregator works where it is told to, whoever the parties are.
    whose = [server] if job.aggregator == "PlainAggregator" else [server, parties]
    model = FLModel(
        server=server,
        device_list=parties,
        model=definition,
        aggregator=getattr(aggregation, job.aggregator)(*whose, **job.aggregator_options),
        strategy=job.strategy,
        backend="torch",
        random_seed=1,
        **job.options,
    )
    if not job.data_first:
        x, y = _data(job, parties)
    clock = _clock(time.process_time if job.processor_time else time.perf_counter)
    history = model.fit(
        x,
        y,
        epochs=job.epochs,
        batch_size={party: job.batch_size(k) for k, party in enumerate(parties)},
        aggregate_freq=job.aggregate_freq,
        callbacks=[clock],
        verbose=0,
    )
    metrics = {name: [float(v) for v in values] for name, values in history["global_history"].items()}
    return {
        "model_began": model_began,
        "ended": clock.ended,
        "epochs": clock.epochs,
        "memory": clock.memory,
        "history": metrics,
    }


def _builder(net: str, nets: Any) -> Any:
    if net.startswith("idle-"):
        return _idle(getattr(nets, net.removeprefix("idle-")))
    return _wide(int(net.removeprefix("wide-"))) if net.startswith("wide-") else getattr(nets, net)


def _idle(net: Any) -> Any:
    from secretflow.ml.nn.core.torch import BaseModule

    class Idle(BaseModule):
        """A net that is averaged and never trained."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net()
            self.automatic_optimization = False

        def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> None:
            """Does nothing."""

    return Idle


def _wide(weights: int) -> Any:
    from torch import nn

    def build() -> nn.Module:
        hidden = max(1, weights // (28 * 28 + 10))
        return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    return build


def load_nets(file: str = "experiments/dgl_utils.py") -> Any:
    """A module of nets from its file, for its package needs more than upstream has.

    Args:
        file: path in this checkout.
    """
    path = Path(__file__).resolve().parent.parent / file
    spec = importlib.util.spec_from_file_location("benchmarked_nets", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def own_rows(
    images: str, party: int, rows: int, shape: tuple[int, int, int] = (1, 28, 28)
) -> tuple[Any, Any]:
    """A party's images, float32 from 0 to 1 of shape (rows, *shape), and its labels, one-hot.

    Args:
        images: of :class:`Job`.
        party: its number; it has the rows behind those of the parties before it.
        rows: how many; behind the last row the first one comes again.
        shape: ``image_shape`` of :class:`Job`.
    """
    import numpy as np

    with np.load(images) as arrays:
        mine = np.arange(party * rows, (party + 1) * rows) % len(arrays["x"])
        x = arrays["x"][mine].astype(np.float32)[:, None] / 255
        channels, *sides = shape
        frame = [(0, whole - side) for whole, side in zip(sides, x.shape[2:], strict=True)]
        x = np.pad(x.repeat(channels, axis=1), [(0, 0), (0, 0), *frame])
        return x, np.eye(10, dtype=np.float32)[arrays["y"][mine]]


def _data(job: Job, parties: list[Any]) -> tuple[Any, Any]:
    """Each party reads its own rows."""
    from secretflow.data.ndarray import FedNdarray, PartitionWay

    batches = job.rounds * job.aggregate_freq
    parts = {
        party: party(own_rows, num_returns=2)(job.images, k, batches * job.batch_size(k), job.image_shape)
        for k, party in enumerate(parties)
    }
    x, y = ({party: part[i] for party, part in parts.items()} for i in range(2))
    return FedNdarray(x, PartitionWay.HORIZONTAL), FedNdarray(y, PartitionWay.HORIZONTAL)


def _clock(seconds: Callable[[], float]) -> Any:
    from secretflow.device import reveal
    from secretflow.ml.nn.callbacks.callback import Callback

    class Clock(Callback):
        """Takes the time of epochs, when all workers have caught up."""

        def __init__(self) -> None:
            super().__init__()
            self.epochs: list[float] = []
            self.memory: list[dict[str, int]] = []
            self.ended = 0.0
            self._began = 0.0

        def on_epoch_begin(self, epoch: int | None = None, logs: Any = None) -> None:
            self._began = seconds()

        def on_epoch_end(self, epoch: int | None = None, logs: Any = None) -> None:
            reveal([worker.get_stop_training() for worker in self._workers.values()])
            self.epochs.append(seconds() - self._began)
            self.ended = time.time()
            self.memory.append(resident_bytes())

    return Clock()


def resident_bytes() -> dict[str, int]:
    """Resident memory of this process and of Ray's actors on this machine, by name; empty without /proc."""
    sizes: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_text().replace("\0", " ").strip()
            status = (folder / "status").read_text()
        except OSError:  # it has ended
            continue
        name = title.partition("::Actor")[2].partition(".")[0]
        if folder.name == str(os.getpid()):
            name = "driver"
        if name:
            key = f"{name} {sum(other.startswith(name) for other in sizes)}"
            sizes[key] = 1024 * int(status.partition("VmRSS:")[2].split()[0])
    return sizes


if __name__ == "__main__":
    main()
