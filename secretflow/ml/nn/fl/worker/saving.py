"""A party's model as files on its own disk: checkpoints, and the sparse model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.backend.torch.batches import moved
from secretflow.ml.nn.fl.backend.torch.checkpoint import (
    newest_epoch,
    plain_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from secretflow.ml.nn.fl.backend.torch.masked_model import tensors_of
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.small_model import save_dense_small
from secretflow.ml.nn.fl.sparse_model import export_sparse
from secretflow.ml.nn.fl.worker.checkpoints import check_fits, checkpoint_of, take_checkpoint
from secretflow.ml.nn.fl.worker.training import LocalTraining


class WithFiles:
    """What a party's worker saves and loads."""

    _training: LocalTraining
    _settings: PruneSettings
    model: Any
    exe_device: Any
    train_set: Any
    epoch: list[int]

    def save_model(self, model_path: str, keep_previous: bool = False) -> None:
        """Writes model, optimisers, epoch and mask, see :func:`write_checkpoint`."""
        self._training.masked.zero_pruned()
        checkpoint = checkpoint_of(self._training, self._settings, len(self.epoch))
        write_checkpoint(Path(model_path), checkpoint, keep_previous)

    def check_saves(self) -> None:
        """Looks whether a checkpoint could be written now.

        Raises:
            ValueError: it could not be, see :func:`write_checkpoint`.
        """
        plain_checkpoint(checkpoint_of(self._training, self._settings, len(self.epoch)))

    def saved_epoch(self, model_path: str) -> int:
        """How many epochs the model saved there last had been trained for."""
        return newest_epoch(Path(model_path))

    def load_model(self, model_path: str, epoch: int | None = None) -> int:
        """Reads what :meth:`save_model` wrote, see :func:`read_checkpoint`.

        Returns:
            The number of epochs the model had been trained for.

        Raises:
            ValueError: the file is damaged, not one of this model and strategy, or not to be trained on, see
                :mod:`.incoming`; nothing was changed then.
        """
        checkpoint = read_checkpoint(Path(model_path), self.exe_device, epoch)
        try:
            check_fits(checkpoint, self._training, self._settings)
        except ValueError as error:
            raise ArgumentError(f"model_path must be of this model, got {model_path!r}: {error}") from None
        mask = {name: entry.numpy(force=True) for name, entry in checkpoint["prune_mask"].items()}
        self._training.incoming.check_layers(checkpoint["model_state_dict"], mask)
        take_checkpoint(checkpoint, self._training)
        self.epoch = list(range(checkpoint["epoch"]))
        return checkpoint["epoch"]

    def export_sparse(self, path: str) -> None:
        """Writes the living weights, see :func:`~secretflow.ml.nn.fl.sparse_model.export_sparse`."""
        self._training.masked.zero_pruned()
        export_sparse(tensors_of(self.model), path)

    def export_dense_small(self, path: str) -> None:
        """Writes the small model, see :func:`~secretflow.ml.nn.fl.small_model.save_dense_small`."""
        self._training.masked.zero_pruned()
        save_dense_small(self.model, path, _first_rows(self.train_set, self.exe_device))


def _first_rows(loader: Any, device: torch.device) -> Any:
    """The features of a batch of at most 64 rows; None if there are none.

    Args:
        loader: what the batches come from, or None; its order of rows stays what it was.
        device: where the features shall be.
    """
    tensors = getattr(getattr(loader, "dataset", None), "tensors", ())
    if tensors:
        return tensors[0][:64].to(device)
    if loader is None:
        return None
    with torch.random.fork_rng([]):
        batch = next(iter(loader), None)
    return moved(batch[0], device) if isinstance(batch, (list, tuple)) else None
