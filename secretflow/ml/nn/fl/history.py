"""What a training run recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.fl.audience import Audience
from secretflow.ml.nn.metrics import aggregate_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History(dict[str, Any]):
    """Upstream's dictionary, readable as attributes too.

    At the driver of a blind server over the network it has the seconds and what was uploaded.

    Attributes:
        global_history: for each metric of all parties together its value after each epoch.
        local_history: the same for each party's own, under ``<party>_<metric>``.
        participants: with ``min_survivors``, for each epoch and each of its rounds the names of the parties
            whose uploads are in the average; none where a round has no average. Else empty.
    """

    @property
    def global_history(self) -> dict[str, list[Any]]:
        return self["global_history"]

    @property
    def local_history(self) -> dict[str, list[Any]]:
        return self["local_history"]

    @property
    def participants(self) -> list[list[list[str]]]:
        found: list[list[list[str]]] = self.get("participants", [])
        return found

    def plot(self) -> Figure:
        """Draws metrics, loss, densities and upload, see :func:`~secretflow.ml.nn.fl.plots.plot_history`.

        Returns:
            A figure; ``history.plot().savefig("run.png")`` writes it.

        Raises:
            ImportError: Matplotlib is not installed.
            ValueError: the strategy does not prune, or no epoch has been trained.
        """
        from secretflow.ml.nn.fl.plots import plot_history

        return plot_history(self)


class MetricsRecorder(Callback):
    """Adds the metrics of each epoch to a history: upstream's callback, for those that are told.

    Args:
        history: where to.
        audience: who is told.
    """

    def __init__(self, history: History, audience: Audience) -> None:
        super().__init__()
        self._history = history
        self._audience = audience

    def on_epoch_end(self, epoch: int | None = None, logs: Any = None) -> None:
        """Asks all parties for their metrics."""
        told = self._audience.told(
            [(worker.get_local_metrics(), worker.get_logs()) for worker in self._workers.values()]
        )
        if told is None:
            return
        # Of metrics of one name the last is meant; some warn when they are computed.
        last = {metric.name: metric for metric in aggregate_metrics([metrics for metrics, _ in told])}
        for name, metric in last.items():
            self._history.global_history.setdefault(name, []).append(metric.result().numpy())
        for device, (_, logs) in zip(self._workers, told, strict=True):
            for name, value in logs.items():
                self._history.local_history.setdefault(f"{device}_{name}", []).append(value)
