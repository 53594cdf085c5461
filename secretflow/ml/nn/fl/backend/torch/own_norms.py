"""Weights without those of batch normalisation, which ``skip_bn`` leaves at the parties, wherever it is."""

from __future__ import annotations

from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def names_without_norms(model: nn.Module) -> list[str]:
    """The names in a model's ``state_dict`` of what is not in a batch normalisation, at any depth.

    Args:
        model: left as it is.
    """
    norms = tuple(
        f"{path}." if path else ""
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, _BatchNorm)
    )
    return [name for name in model.state_dict() if not name.startswith(norms)]


def use_own_norms(model: Any) -> None:
    """Gives a model the functions of this module in place of upstream's, which see only the outermost.

    Args:
        model: upstream's torch model.
    """
    for function in (get_weights_not_bn, update_weights_not_bn):
        object.__setattr__(model, function.__name__, MethodType(function, model))


def get_weights_not_bn(self: Any, return_numpy: bool = False) -> Any:
    """A copy of the weights without batch normalisation: tensors by name, or a list of arrays."""
    state = self.state_dict()
    tensors = {name: state[name].detach().cpu().clone() for name in names_without_norms(self)}
    return [value.numpy() for value in tensors.values()] if return_numpy else tensors


def update_weights_not_bn(self: Any, weights: list[np.ndarray]) -> None:
    """Takes what :func:`get_weights_not_bn` gives as arrays."""
    names = names_without_norms(self)
    new = {name: torch.from_numpy(np.array(value)) for name, value in zip(names, weights, strict=True)}
    self.load_state_dict(new, strict=False)
