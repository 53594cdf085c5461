"""What ``FLModel`` writes for those who use the trained model elsewhere."""

from __future__ import annotations

from typing import Any

from secretflow import _validate
from secretflow.device import PYU, wait
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.checks import PRUNE_STRATEGY
from secretflow.ml.nn.fl.party_paths import Paths, path_of
from secretflow.ml.nn.fl.pruning import PRUNE_STRUCTURES, PruneSettings


class WithExports:
    """Has the parties write their models without what is pruned."""

    strategy: str
    wp_strategy: bool
    _workers: dict[PYU, Any]
    _prune_settings: PruneSettings

    def export_sparse(self, path: Paths, is_test: bool = False) -> None:
        """Has every party write the living weights of its model to its own disk.

        With ``mask_scope="local"`` they are more than what was averaged: weights that too few others keep
        have never left the party, and the mask is its own. A model of ``mask_scope="global"`` is what all
        have.
        :func:`~secretflow.ml.nn.fl.sparse_model.load_sparse` reads the file, which only its owner may.

        Args:
            path: folder and name of the file, one for all parties or one for each.
            is_test: adds the party's name to the folder, for parties that share a disk.

        Raises:
            TypeError: ``path`` is no path, or ``is_test`` neither True nor False.
            ValueError: the strategy does not prune.
        """
        if not self.wp_strategy:
            raise ArgumentError(
                f"strategy must be {PRUNE_STRATEGY!r} for export_sparse, got {self.strategy!r}"
            )
        _validate.flag("is_test", is_test)
        wait(
            [worker.export_sparse(path_of(device, path, is_test)) for device, worker in self._workers.items()]
        )

    def export_dense_small(self, path: Paths, is_test: bool = False) -> None:
        """Has every party write a smaller net that computes what its model does, to its own disk.

        It holds weights that have never left the party as :meth:`export_sparse` does.
        :func:`~secretflow.ml.nn.fl.small_model.load_dense_small` reads it; of a net at hand,
        :func:`~secretflow.ml.nn.fl.small_model.export_dense_small` makes the smaller one.

        Args:
            path: as for :meth:`export_sparse`.
            is_test: as there.

        Raises:
            TypeError: ``path`` is no path, or ``is_test`` neither True nor False.
            ValueError: the strategy does not prune, or removes no whole units.
        """
        if not self.wp_strategy:
            raise ArgumentError(
                f"strategy must be {PRUNE_STRATEGY!r} for export_dense_small, got {self.strategy!r}"
            )
        if self._prune_settings.prune_structure is None:
            raise ArgumentError(
                f"prune_structure must be one of {', '.join(map(repr, PRUNE_STRUCTURES))} for "
                "export_dense_small, got None"
            )
        _validate.flag("is_test", is_test)
        wait(
            [
                worker.export_dense_small(path_of(device, path, is_test))
                for device, worker in self._workers.items()
            ]
        )
