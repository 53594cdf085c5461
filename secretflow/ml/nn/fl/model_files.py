"""How ``FLModel`` has every party save and load its model."""

from __future__ import annotations

from collections.abc import Mapping
from os import fspath
from typing import Any

from secretflow import _validate
from secretflow.device import PYU, reveal
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.checks import PRUNE_STRATEGY
from secretflow.ml.nn.fl.keywords import check_load_keywords
from secretflow.ml.nn.fl.party_paths import Paths, path_of, share_a_disk


class WithModelFiles:
    """What a federated model saves and loads, no two parties in one file; a base in front of upstream's.

    In a simulation the parties share a disk, so where one path is given for all of them the folder gets the
    party's name: ``run/model`` is ``run/alice/model``. Over a network it is what it is at each party.

    Attributes:
        wp_strategy: whether the strategy prunes.
        strategy: its name.
    """

    wp_strategy: bool
    strategy: str
    _workers: dict[PYU, Any]

    def save_model(self, model_path: Paths, is_test: bool = False, **kwargs: Any) -> None:
        """Has every party save its model on its own disk.

        Args:
            model_path: folder and name of the file, one for all parties or one for each.
            is_test: adds the party's name to the folder; a simulation does where there is one path.
            **kwargs: upstream's.

        Raises:
            TypeError: a party has no path.
            ValueError: a path has no name.
        """
        by_name = self._by_name(model_path, is_test)
        super().save_model(_plain(model_path), is_test=by_name, **kwargs)  # type: ignore[misc]

    def load_model(self, model_path: Paths, is_test: bool = False, **kwargs: Any) -> None:
        """Has every party load its model.

        A run that was stopped while its parties saved may have left some of them one checkpoint ahead. Those
        load the one before, which :class:`~secretflow.ml.nn.fl.callbacks.Checkpoint` keeps, so all go on
        from the same epoch.

        Args:
            model_path: as for :meth:`save_model`.
            is_test: as for :meth:`save_model`.
            **kwargs: upstream's.

        Raises:
            TypeError: a party has no path, or there is no argument of that name.
            FileNotFoundError: a party has no such file.
            ValueError: a file is damaged, or the parties have no epoch in common.
        """
        by_name = self._by_name(model_path, is_test)
        if self.wp_strategy:
            check_load_keywords(kwargs)
            saved = [
                worker.saved_epoch(path_of(device, model_path, by_name, "model_path"))
                for device, worker in self._workers.items()
            ]
            kwargs["epoch"] = min(reveal(saved))
        super().load_model(_plain(model_path), is_test=by_name, **kwargs)  # type: ignore[misc]

    def epochs_trained(self) -> int:
        """Epochs of this model with pruning so far, those before it was saved and loaded included.

        Raises:
            ValueError: they are not the same at all parties, or the strategy does not prune.
        """
        if not self.wp_strategy:
            raise ArgumentError(
                f"strategy must be {PRUNE_STRATEGY!r} for epochs_trained, got {self.strategy!r}"
            )
        epochs = reveal([worker.epochs_trained() for worker in self._workers.values()])
        return same_epochs(epochs)

    def _by_name(self, model_path: Any, is_test: bool) -> bool:
        """Whether each party's file is in a folder of its name; refuses what is no path."""
        _validate.flag("is_test", is_test)
        for device in self._workers:
            path_of(device, model_path, is_test, "model_path")
            own = model_path[device] if isinstance(model_path, Mapping) else model_path
            named = not fspath(own).endswith("/")
            _validate.check(named, "model_path", own, "folder and name of a file, not a folder")
        return is_test or share_a_disk(model_path)


def same_epochs(epochs: list[int]) -> int:
    """How many epochs all parties have trained.

    Raises:
        ValueError: they have not trained as many.
    """
    if len(set(epochs)) != 1:
        raise ArgumentError(
            f"device_list must be of parties with as many epochs, got {epochs}: load the same one"
        )
    return epochs[0]


def _plain(model_path: Paths) -> str | dict[PYU, str]:
    """Paths as upstream takes them."""
    if isinstance(model_path, Mapping):
        return {device: fspath(path) for device, path in model_path.items()}
    return fspath(model_path)
