"""Which models :class:`~secretflow.ml.nn.fl.fl_model.FLModel` refuses before any worker starts."""

from __future__ import annotations

import logging
from typing import Any

import torch

from secretflow.errors import ArgumentError, WrongTypeError
from secretflow.ml.nn.core.torch import TorchModel
from secretflow.ml.nn.fl.backend.torch.masked_model import prunable_shapes, tensors_of
from secretflow.ml.nn.fl.backend.torch.steps import check_steps
from secretflow.ml.nn.fl.backend.torch.units import unit_groups
from secretflow.ml.nn.fl.pruning import PruneSettings


def check_model(model: Any, settings: PruneSettings) -> None:
    """Refuses a model with nothing to prune, or with what cannot be averaged, before any worker starts.

    The model is built without memory for its weights. One that cannot be built so is left to the workers,
    which check theirs.

    Args:
        model: as ``FLModel`` gets it.
        settings: what the user chose about pruning.

    Raises:
        TypeError: it is no model, or has steps that would not be used.
        ValueError: the model is not allowed.
    """
    builder = model if isinstance(model, TorchModel) else TorchModel(model_fn=model)
    if not callable(builder.model_fn):
        raise ArgumentError(f"model must be a TorchModel or a function that builds a module, got {model!r}")
    _check_builders(builder)
    try:
        with torch.device("meta"):
            module = builder.model_fn(**builder.kwargs)
    except Exception as error:
        logging.debug("the model cannot be built without memory: %r", error)
        return
    if not isinstance(module, torch.nn.Module):
        raise WrongTypeError(
            f"model must be a function that builds a module of torch's, got one that builds {module!r}"
        )
    check_steps(type(module), builder.optim_fn is not None)
    prunable_shapes(module, settings.prunable)
    if settings.prune_structure is not None:
        unit_groups(module, settings.prune_structure, settings.prunable)
    for name, value in tensors_of(module).items():
        if value.dtype == torch.bfloat16:
            raise ArgumentError(
                f"model must hold float32 numbers, got bfloat16 in {name} of {type(module).__name__}; keep "
                "the weights in float32, and compute with torch.autocast in a training_step"
            )
        if value.dtype == torch.bool or value.dtype.is_complex:
            raise ArgumentError(
                f"model must hold real numbers, for others have no average, got {value.dtype} in {name} of "
                f"{type(module).__name__}; register_buffer(..., persistent=False) keeps a buffer at a party"
            )


def _check_builders(builder: TorchModel) -> None:
    """Refuses what has been built already: every party builds its own."""
    metrics = builder.metrics
    if metrics is not None and not isinstance(metrics, (list, tuple)):
        shown = getattr(metrics, "__name__", type(metrics).__name__)
        raise WrongTypeError(f"metrics must be a list of functions that build, got {shown}; [{shown}] is one")
    given = {"model_fn": builder.model_fn, "loss_fn": builder.loss_fn, "optim_fn": builder.optim_fn}
    given.update({f"metrics[{k}]": metric for k, metric in enumerate(metrics or [])})
    for name, value in given.items():
        built = isinstance(value, (torch.nn.Module, torch.optim.Optimizer))
        if value is not None and (built or not callable(value)):
            kind = type(value).__name__
            raise WrongTypeError(
                f"{name} must be a class or a function that builds, for every party builds its own, got a "
                f"built {kind}; give {kind} itself, or lambda: {kind}(...)"
            )
