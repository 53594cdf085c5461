"""Which parameters of a torch model are prunable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.pruning import Prunable

_WEIGHT_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag)
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
# A scaled weight is zero where the stored one is.
_SCALING = ("SpectralNorm", "_SpectralNorm")
_STORED = ("g", "v", "orig")  # how hooks name what they compute a weight from


def prunable_parameters(model: nn.Module, choice: Prunable = None) -> dict[str, torch.Tensor]:
    """The prunable parameters of a model by their name in the ``state_dict``.

    A parameter that two layers share is there under both names.

    Args:
        model: the model; also without memory for its weights ("meta").
        choice: see :attr:`~secretflow.ml.nn.fl.pruning.PruneSettings.prunable`; None chooses the weights of
            linear, convolution, embedding, recurrent and attention layers.

    Raises:
        ValueError: nothing is chosen, or a chosen weight is computed anew from other parameters.
    """
    recomputed = {name: found for found in _recomputed(model) for name in found.stored}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names = _of_layers(model) if choice is None else _chosen(parameters, choice)
    for name in names:
        found = recomputed.get(name)
        if found is not None and found.how not in _SCALING:
            raise _unprunable(found.tensor, found.how)
        if not is_lazy(parameters[name]) and not parameters[name].numel():
            raise ArgumentError(
                f"model must have weights in every layer that is pruned, got {name} of shape "
                f"{tuple(parameters[name].shape)}; take that layer out, or leave it out with prunable"
            )
        if is_lazy(parameters[name]):
            raise ArgumentError(
                f"model must know the shape of every weight, got {name} without one; call the model on a "
                "batch where it is built"
            )
    if not names:
        raise ArgumentError(
            "model must have a linear, convolution, embedding, recurrent or attention layer, got "
            f"{type(model).__name__}, which has nothing to prune; prunable names other parameters"
        )
    return {name: parameters[name] for name in names}


@dataclass(frozen=True)
class _Recomputed:
    """A tensor that a layer computes from parameters before it uses it.

    Attributes:
        tensor: its name in the model.
        how: class of what computes it.
        stored: names of the parameters in the model.
    """

    tensor: str
    how: str
    stored: list[str]


def _recomputed(model: nn.Module) -> Iterator[_Recomputed]:
    for path, layer in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        if parametrize.is_parametrized(layer):
            for tensor, steps in layer.parametrizations.items():
                stored = [f"{prefix}parametrizations.{tensor}.{n}" for n, _ in steps.named_parameters()]
                kinds = [type(step).__name__ for step in steps]
                how = kinds[0] if len(kinds) == 1 else ", ".join(kinds)
                yield _Recomputed(prefix + tensor, how, stored)
        # The older way (torch.nn.utils.weight_norm, spectral_norm and prune): a hook that has the name.
        for hook in layer._forward_pre_hooks.values():
            hooked = getattr(hook, "_tensor_name", getattr(hook, "name", None))
            if isinstance(hooked, str) and hooked not in layer._parameters:
                own = [f"{prefix}{hooked}_{end}" for end in _STORED if f"{hooked}_{end}" in layer._parameters]
                if own:
                    yield _Recomputed(prefix + hooked, type(hook).__name__, own)


def _of_layers(model: nn.Module) -> list[str]:
    """The names of the weights of the layers that are pruned by default, as they are stored."""
    stored = {found.tensor: found for found in _recomputed(model)}
    names = []
    for path, layer in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for tensor in _tensors_of(layer, {n.removeprefix(prefix) for n in stored if n.startswith(prefix)}):
            found = stored.get(prefix + tensor)
            if found is not None and found.how in _SCALING:
                names += found.stored
            elif found is not None or not isinstance(layer._parameters.get(tensor), nn.Parameter):
                raise _unprunable(prefix + tensor, found.how if found else type(layer).__name__)
            else:
                names.append(prefix + tensor)
    return names


def _tensors_of(layer: nn.Module, recomputed: set[str]) -> list[str]:
    """The names, in a layer, of its weights that are pruned by default."""
    if isinstance(layer, _WEIGHT_LAYERS):
        return ["weight"]
    own = [name for name, value in layer._parameters.items() if value is not None]
    if isinstance(layer, nn.MultiheadAttention):
        return [name for name in _ATTENTION_WEIGHTS if name in own or name in recomputed]
    if isinstance(layer, _RECURRENT):
        stored = {f"{tensor}_{end}" for tensor in recomputed for end in _STORED}
        return sorted(name for name in {*own, *recomputed} - stored if name.startswith("weight_"))
    return []


def _unprunable(tensor: str, how: str) -> ValueError:
    return ValueError(
        f"model must hold each weight that is pruned as a parameter, got {tensor}, which {how} computes anew "
        "from others, so it is not zero where they are or cannot be zero at all; take that off, or leave "
        f"{tensor} out with prunable"
    )


def _chosen(parameters: Mapping[str, torch.Tensor], choice: Prunable) -> list[str]:
    matrices = {
        name: value
        for name, value in parameters.items()
        if is_lazy(value) or (value.dim() >= 2 and value.is_floating_point())
    }
    if callable(choice):
        names = [name for name, value in matrices.items() if choice(name, value)]
        if not names:
            raise ArgumentError(
                "prunable must choose at least one parameter of two or more dimensions, got "
                f"{getattr(choice, '__name__', choice)!s}, which chooses none of {', '.join(matrices)}"
            )
        return names
    assert choice is not None and not isinstance(choice, str)  # as PruneSettings keeps it
    chosen: set[str] = set()
    for pattern in choice:
        matched = {name for name in matrices if fnmatchcase(name, pattern)}
        if not matched:
            near = get_close_matches(pattern, matrices, n=1, cutoff=0.4)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(matrices)}"
            raise ArgumentError(
                "prunable must name parameters of two or more dimensions, each pattern at least one, got "
                f"{pattern!r}, which names none; {meant}"
            )
        chosen |= matched
    return [name for name in matrices if name in chosen]
