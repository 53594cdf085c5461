"""Captures one step of a party's training, see :mod:`.capture`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from secretflow.ml.nn.fl.backend.torch.batches import moved
from secretflow.ml.nn.fl.backend.torch.masked_model import tensors_of
from secretflow.ml.nn.fl.pruning import density
from secretflow.ml.nn.fl.worker.capture_files import modules_evaluating, optimizer_settings, write_capture
from secretflow.ml.nn.fl.worker.masked import MaskedModel
from secretflow.ml.nn.fl.worker.trainer import Batch


def capturing(
    folder: str, model: Any, masked: MaskedModel, party: str, round_number: int
) -> Callable[[Batch], Callable[[], None]]:
    """What writes a step down.

    Args:
        folder: where to.
        model: upstream's torch model, with its optimisers.
        masked: the model under its mask.
        party: whose it is.
        round_number: see :func:`~.capture_files.write_capture`.

    Returns:
        A function to call before the step with its batch; what it returns is to be called after the step.
    """

    def before(batch: Batch) -> Callable[[], None]:
        weights = {name: value.detach().cpu().clone() for name, value in tensors_of(model).items()}

        def after() -> None:
            write_capture(
                folder,
                x=moved(batch[0], torch.device("cpu")),
                y=moved(batch[1], torch.device("cpu")),
                weights=weights,
                mask=masked.entries(),
                gradients=[
                    # A frozen parameter has no gradient.
                    (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
                    .detach()
                    .cpu()
                    .clone()
                    for parameter in model.parameters()
                ],
                party=party,
                round_number=round_number,
                density=density(masked.mask),
                optimizer=optimizer_settings(model._optimizers[0]),
                evaluating=modules_evaluating(model),
            )

        return after

    return before
