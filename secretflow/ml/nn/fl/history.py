"""What a training run recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History(dict[str, Any]):
    """Upstream's dictionary, readable as attributes too.

    Attributes:
        global_history: for each metric of all parties together its value after each epoch. Over the network
            those that add up; at the driver of a blind server the seconds and what was uploaded alone. With
            ``min_survivors`` NaN where it could tell of few parties, see ``docs/production.md``.
        local_history: the same for each party's own, under ``<party>_<metric>``; over the network for the
            driver's own party alone.
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
