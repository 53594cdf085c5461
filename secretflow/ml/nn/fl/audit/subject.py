"""The net that is audited: how it is built, what it is trained with, the weights it starts from."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from secretflow import _validate
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.audit.rows import Rows

Weights = Mapping[str, torch.Tensor]

_OF_LOSS = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll",
    nn.BCEWithLogitsLoss: "bce_with_logits",
    nn.BCELoss: "bce",
}
LOSSES = tuple(_OF_LOSS.values())
_LEAST_ZEROS = 0.01
"""Part of zeros from which on a weight of a checkpoint is taken for pruned."""


class Subject:
    """A net, its loss and its weights.

    Args:
        model: builds the net: a function or class, a ``TorchModel``, or "module:function" or
            "file.py:function". It may take ``inputs`` (numbers of a row), ``channels``, ``size`` (of images),
            ``steps``, ``vocabulary`` (of sequences) and ``classes`` or ``num_classes``, by these names;
            others need defaults.
        rows: whose shapes and classes these are.
        loss: "cross_entropy", "nll" (of log-probabilities), "bce_with_logits" or "bce" (one score or
            probability for two classes); None is that of a ``TorchModel``, else "cross_entropy".
        weights: a ``state_dict``, the path of one or of a checkpoint of ``FLModel``; None draws fresh ones.
        seed: of fresh weights.

    Attributes:
        name: of the net, for the report.
        loss: one of those names.
        weights: the net's ``state_dict``.
        trained: whether they were given.
        mask: of a checkpoint that is pruned: 0 where a prunable weight is zero and 1 elsewhere; else empty.
        evaluating: modules that draw random numbers in training, which the audit switches off.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: the net cannot be built, does not take the rows, its loss is another one, or the weights
            are not its own.
    """

    def __init__(
        self,
        model: Any,
        rows: Rows,
        loss: str | None = None,
        weights: Weights | str | Path | None = None,
        seed: int = 0,
    ) -> None:
        _validate.integer("seed", seed, 0)
        model = _found(model) if isinstance(model, str) else model
        self._make, self.name = _factory(model)
        self._arguments = _arguments_of(self._make, rows)
        self.loss = loss or _loss_of(model) or "cross_entropy"
        _validate.one_of("loss", self.loss, LOSSES)
        self._tokens = rows.kind == "tokens"
        fits = len(rows.labels) == 2 or not self.loss.startswith("bce")
        what = f"'cross_entropy' or 'nll' for {len(rows.labels)} classes"
        _validate.check(fits, "loss", self.loss, what)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            net = self.build()
        self.trained = weights is not None
        self.weights = _state(net) if weights is None else _own(net, weights)
        self.mask = _mask_of(net, self.weights) if self.trained else {}
        self.evaluating = tuple(name for name, module in net.named_modules() if _draws(module))
        self._check_takes(net, rows)

    def _check_takes(self, net: nn.Module, rows: Rows) -> None:
        """Calls the net once, in evaluation, where one row is enough for normalisation by batch."""
        try:
            with torch.random.fork_rng([]), torch.no_grad():
                scores = net.eval()(rows.x[:1])
        except (ValueError, RuntimeError, IndexError) as error:
            raise ArgumentError(
                f"model must be a net that takes these rows, got one that refuses a row of shape "
                f"{rows.shape}: {error}"
            ) from error
        one = isinstance(scores, torch.Tensor) and scores.numel() == 1 and len(rows.labels) == 2
        what = "'bce_with_logits' or 'bce' for a net that gives one score for two classes"
        _validate.check(not one, "loss", self.loss, what)

    def build(self) -> nn.Module:
        """The net, which takes numbers and gives a score for each class, to be put into the cross entropy."""
        try:
            net = self._make(**self._arguments)
        except TypeError as error:
            raise ArgumentError(
                f"model must be built from {sorted(self._arguments) or 'no argument'}, got {error}"
            ) from error
        _validate.instance("model", net, nn.Module, "a function that builds a torch module")
        if self._tokens:
            net.register_forward_pre_hook(lambda _, args: (args[0].long(), *args[1:]))
        if self.loss.startswith("bce"):
            net.register_forward_hook(_two_scores if self.loss == "bce_with_logits" else _two_logarithms)
        return net


def _two_scores(_: nn.Module, __: object, score: torch.Tensor) -> torch.Tensor:
    """Scores whose cross entropy is the binary one of a logit: 0 and that."""
    score = score.reshape(len(score), 1)
    return torch.cat([torch.zeros_like(score), score], dim=1)


def _two_logarithms(_: nn.Module, __: object, probability: torch.Tensor) -> torch.Tensor:
    """Scores whose cross entropy is the binary one of a probability."""
    p = probability.reshape(len(probability), 1).clamp(1e-7, 1 - 1e-7)
    return torch.cat([(1 - p).log(), p.log()], dim=1)


def _draws(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    return isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) and bool(module.dropout)


def _factory(model: Any) -> tuple[Callable[..., nn.Module], str]:
    """What builds the net, and its name."""
    if callable(getattr(model, "model_fn", None)):
        make, name = _factory(model.model_fn)
        return partial(make, **model.kwargs), name
    _validate.check(callable(model), "model", model, "a function that builds a torch module", TypeError)
    _validate.check(not isinstance(model, nn.Module), "model", type(model).__name__, "a function, not a net")
    return model, getattr(model, "__name__", type(model).__name__)


def _found(model: str) -> Any:
    """What a text names."""
    module, _, name = model.rpartition(":")
    what = "'module:function' or 'file.py:function'"
    _validate.check(bool(module and name), "model", model, what)
    found = getattr(_module(module), name, None)
    _validate.check(found is not None, "model", model, f"{what}, with a function that is there")
    return found


def _module(name: str) -> ModuleType:
    if not name.endswith(".py"):
        sys.path.insert(0, "") if "" not in sys.path else None
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise ArgumentError(
                f"model must name a module that can be imported, got {name!r}: {error}"
            ) from error
    path = Path(name)
    if not path.is_file():
        raise ArgumentError(f"model must name a file that is there, got {name!r}")
    spec = importlib.util.spec_from_file_location(f"audited_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # a file that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _arguments_of(make: Callable[..., nn.Module], rows: Rows) -> dict[str, int]:
    """Those that the function asks for by name, of what the rows tell."""
    classes = len(rows.labels)
    known = {"inputs": rows.x[0].numel(), "classes": classes, "num_classes": classes}
    if rows.kind == "images":
        known |= {"channels": rows.shape[0], "size": rows.shape[-1]}
    if rows.kind == "tokens":
        known |= {"steps": rows.shape[0], "vocabulary": max(len(rows.words), int(rows.x.max()) + 1)}
    try:
        names = inspect.signature(make).parameters
    except (TypeError, ValueError):
        return {}
    given = make.keywords if isinstance(make, partial) else {}
    return {name: value for name, value in known.items() if name in names and name not in given}


def _loss_of(model: Any) -> str | None:
    """The name of the loss of a ``TorchModel``; None if there is none."""
    make = getattr(model, "loss_fn", None)
    if make is None:
        return None
    loss = make if isinstance(make, nn.Module) else make()
    name = _OF_LOSS.get(type(loss))
    plain = (
        name is not None
        and loss.reduction == "mean"
        and getattr(loss, "weight", None) is None
        and getattr(loss, "pos_weight", None) is None
        and not getattr(loss, "label_smoothing", 0)
    )
    what = (
        f"a plain mean of {', '.join(kind.__name__ for kind in _OF_LOSS)}; another loss cannot be audited yet"
    )
    _validate.check(plain, "loss", loss, what)
    return name


def _state(net: nn.Module) -> dict[str, torch.Tensor]:
    state = net.state_dict().items()
    return {name: value.detach().clone() for name, value in state if isinstance(value, torch.Tensor)}


def _own(net: nn.Module, weights: Weights | str | Path) -> dict[str, torch.Tensor]:
    """The weights that were given, once the net has taken them."""
    found: Any = weights
    if isinstance(weights, (str, Path)):
        try:
            found = torch.load(weights, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ArgumentError(
                f"weights must be a file of tensors that torch.save wrote, got {str(weights)!r}: {error}"
            ) from None
        found = found.get("model_state_dict", found) if isinstance(found, Mapping) else found
    _validate.instance("weights", found, Mapping, "a state_dict, or the path of one")
    try:
        net.load_state_dict({name: torch.as_tensor(value) for name, value in found.items()})
    except RuntimeError as error:
        raise ArgumentError(f"weights must be those of the model, got others: {error}") from None
    return _state(net)


def _mask_of(net: nn.Module, weights: Weights) -> dict[str, torch.Tensor]:
    from secretflow.ml.nn.fl.backend.torch.masked_model import prunable_shapes

    try:
        names = prunable_shapes(net)
    except ValueError:  # nothing to prune
        return {}
    zeros = {name: weights[name] == 0 for name in names}
    size = sum(entry.numel() for entry in zeros.values())
    if sum(int(entry.sum()) for entry in zeros.values()) < _LEAST_ZEROS * size:
        return {}
    return {name: (~entry).to(weights[name].dtype) for name, entry in zeros.items()}
