"""What a party's checkpoint holds, and what must fit when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.backend.torch.plain_values import held, released
from secretflow.ml.nn.fl.pruning import PruneSettings
from secretflow.ml.nn.fl.worker.kept_updates import NOTHING_KEPT
from secretflow.ml.nn.fl.worker.optimizer_groups import Trained, train_as
from secretflow.ml.nn.fl.worker.training import LocalTraining


def checkpoint_of(training: LocalTraining, settings: PruneSettings, epoch: int) -> dict[str, Any]:
    """All that a party needs to go on.

    Args:
        training: its training.
        settings: what the user chose about pruning.
        epoch: how many epochs have been trained.
    """
    model, withholding = training.trainer.model, training.withholding
    trained = Trained.of(model, model._optimizers)
    return {
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": model.optimizers_state_dict(),
        "optimizers": trained.sizes,
        "trained": tuple(trained),
        "built": tuple(training.built),
        "epoch": epoch,
        "rounds": training.rounds_trained,
        "mask_scope": settings.mask_scope,
        "prune_mask": training.masked.entries(),
        "mask_changed": training.mask_changed,
        "withheld": withholding.differences if withholding else [],
        "updates": training.updates.state(),
    }


def check_fits(checkpoint: dict[str, Any], training: LocalTraining, settings: PruneSettings) -> None:
    """Looks whether a checkpoint is one of a model and settings.

    Args:
        checkpoint: of :func:`checkpoint_of`.
        training: that shall go on from it.
        settings: what the user chose about pruning.

    Raises:
        ValueError: it is not; the message says what differs.
    """
    model = training.trainer.model
    saved, own = (_kinds(state) for state in (checkpoint["model_state_dict"], model.state_dict()))
    shapes = {name: tuple(entry.shape) for name, entry in checkpoint["prune_mask"].items()}
    if saved != own or shapes != {name: entry.shape for name, entry in training.masked.mask.items()}:
        raise ArgumentError("it holds another model or its masks")
    here = Trained.of(model, model._optimizers)
    if _changed_since_built(checkpoint, training) is None and checkpoint["optimizers"] != here.sizes:
        raise ArgumentError(
            f"the optimisers and their groups were {checkpoint['optimizers']}, here they are {here.sizes}"
        )
    if (checkpoint["mask_scope"], settings.mask_scope) == ("local", "global"):
        raise ArgumentError(
            "with mask_scope='global' all parties have one mask, and in it every party has its own "
            "(mask_scope='local')"
        )


def take_checkpoint(checkpoint: dict[str, Any], training: LocalTraining) -> None:
    """Goes on from a checkpoint that fits.

    Args:
        checkpoint: see :func:`check_fits`.
        training: changed in place.
    """
    model = training.trainer.model
    # Before the weights, of which a mask that has pruned more would leave less.
    training.masked.use({name: entry.numpy(force=True) for name, entry in checkpoint["prune_mask"].items()})
    model.load_state_dict(checkpoint["model_state_dict"])
    trained = _changed_since_built(checkpoint, training)
    if trained is not None:
        train_as(trained, model, model._optimizers)
    model.load_optimizers_state_dict(held(checkpoint["optimizer_state_dict"]))
    for optimizer in model._optimizers:
        optimizer.state.update({parameter: released(own) for parameter, own in optimizer.state.items()})
        for group in optimizer.param_groups:
            group.update({name: released(own) for name, own in group.items() if name != "params"})
    if training.withholding:
        kept = checkpoint["withheld"] or [torch.zeros_like(old) for old in training.withholding.differences]
        training.withholding.differences = kept
    # Checkpoints of earlier versions have none.
    training.updates.load(checkpoint.get("updates", NOTHING_KEPT))
    training.rounds_trained = checkpoint["rounds"]
    training.mask_changed = checkpoint["mask_changed"]


def _changed_since_built(checkpoint: dict[str, Any], training: LocalTraining) -> Trained | None:
    """What the saved model trained; None where it was built otherwise than the one here, or it has other
    optimisers or parameters of elsewhere.

    Args:
        checkpoint: as for :func:`check_fits`; those of earlier versions do not say.
        training: as there.
    """
    if checkpoint.get("built") != tuple(training.built):
        return None
    trained = Trained(*checkpoint["trained"])
    same_optimizers = [kind for kind, _ in trained.groups] == [kind for kind, _ in training.built.groups]
    return trained if trained.is_named and same_optimizers else None


def _kinds(state: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], torch.dtype] | None]:
    """Of each entry of a ``state_dict`` shape and type; None for an extra state that is no tensor."""
    return {
        name: (tuple(v.shape), v.dtype) if isinstance(v, torch.Tensor) else None for name, v in state.items()
    }
