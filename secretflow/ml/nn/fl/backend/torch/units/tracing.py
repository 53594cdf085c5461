"""The graph of a model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

from torch import fx, nn

from secretflow.ml.nn.core.torch import BaseModule
from secretflow.ml.nn.fl.backend.torch.evaluation import evaluation_mode


class _Tracer(fx.Tracer):
    """Remembers in which layer it is, so that an error can name it."""

    def __init__(self) -> None:
        super().__init__()
        self.path = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Also a user's subclass of a layer of torch's that computes what that one does."""
        inherits = type(m).forward.__module__.startswith("torch.nn.modules")
        contains = isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
        return (inherits and not contains) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        outer, self.path = self.path, self.path_of_module(m)
        result = super().call_module(m, forward, args, kwargs)
        self.path = outer  # not after an error: the innermost layer is the one to name
        return result


def without_steps(model: nn.Module) -> nn.Module:
    """A model as its user wrote it.

    Args:
        model: the user's, or one to whose class upstream has added steps of training, with a ``forward`` of
            any arguments that calls the user's.

    Returns:
        The model, or one of its arrays and the user's class.
    """
    kind = type(model)
    if kind.forward is not BaseModule.forward:
        return model
    plain = copy.copy(model)
    plain.__class__ = next(each for each in kind.__mro__[1:] if each not in BaseModule.__mro__)
    return plain


def traced(model: nn.Module) -> fx.Graph:
    """The graph of a model's ``forward`` in evaluation mode; inputs that have a default are left out.

    Args:
        model: left as it is; also without memory for its weights ("meta").

    Raises:
        ValueError: :mod:`torch.fx` cannot follow it; the message names the layer.
    """
    tracer = _Tracer()
    inputs = signature(model.forward).parameters.values()
    defaults = {each.name: each.default for each in inputs if each.default is not Parameter.empty}
    try:
        with evaluation_mode(model):
            return tracer.trace(model, defaults or None)
    except Exception as error:
        layer = model.get_submodule(tracer.path)
        told = f"{tracer.path} ({type(layer).__name__})" if tracer.path else type(model).__name__
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise ValueError(
            "model must be traceable by torch.fx so that its units can be removed, got "
            f"{told}, whose forward is not: {reason}; decide by settings of the model, not by values or "
            "sizes of tensors, or leave prune_structure out"
        ) from error
