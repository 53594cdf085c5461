"""The files of ``FLModel``: every party's model on its own disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secretflow.device import PYU, reveal, wait
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.checks import PRUNE_STRATEGY
from secretflow.ml.nn.fl.party_paths import path_of, share_a_disk
from secretflow.ml.nn.fl.training_data import WithTrainingData

Path = str | dict[PYU, str]


class WithModelFiles(WithTrainingData):
    """Upstream's model, of which no two parties write one file.

    In a simulation the parties share a disk, so where one path is given for all of them the folder gets the
    party's name: ``run/model`` is ``run/alice/model``. Over a network it is what it is at each party.
    """

    strategy: str
    _workers: Mapping[PYU, Any]

    def save_model(self, model_path: Path, is_test: bool = False, saved_model: bool = False) -> None:
        """Has every party save its model.

        Args:
            model_path: folder and name of the file, one for all parties or one for each.
            is_test: adds the party's name to the folder; a simulation does where there is one path.
            saved_model: upstream's, not there yet.
        """
        super().save_model(model_path, is_test=is_test or share_a_disk(model_path), saved_model=saved_model)

    def load_model(self, model_path: Path, is_test: bool = False, **kwargs: Any) -> None:
        """Has every party load its model.

        A run that was stopped while its parties saved may have left some of them one checkpoint ahead. Those
        load the one before, which :class:`~secretflow.ml.nn.fl.callbacks.Checkpoint` keeps, so all go on
        from the same epoch.

        Args:
            model_path: as for :meth:`save_model`.
            is_test: as for :meth:`save_model`.
            **kwargs: upstream's.

        Raises:
            FileNotFoundError: a party has no such file.
            ValueError: a file is damaged, or the parties have no epoch in common.
        """
        is_test = is_test or share_a_disk(model_path)
        if self.wp_strategy:
            saved = [
                worker.saved_epoch(path_of(device, model_path, is_test))
                for device, worker in self._workers.items()
            ]
            kwargs["epoch"] = min(reveal(saved))
        super().load_model(model_path, is_test=is_test, **kwargs)

    def export_sparse(self, path: Path, is_test: bool = False) -> None:
        """Has every party write the living weights of its model to its own disk.

        :func:`~secretflow.ml.nn.fl.sparse_model.load_sparse` reads them.

        Args:
            path: as for :meth:`save_model`.
            is_test: as for :meth:`save_model`.

        Raises:
            ValueError: the strategy does not prune.
        """
        if not self.wp_strategy:
            raise ArgumentError(
                f"strategy must be {PRUNE_STRATEGY!r} for export_sparse, got {self.strategy!r}"
            )
        wait(
            [worker.export_sparse(path_of(device, path, is_test)) for device, worker in self._workers.items()]
        )
