"""What each kind of layer does with units.

A rule gets the flow, the layer's path, the layer and what is known of its input; it gives that of its output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from torch import nn
from torch.nn.modules import batchnorm, conv, dropout, instancenorm, padding, pooling

from .flow import Flow, Value, computes_anew
from .ids import Channels, MoreDimensionsError

Rule: TypeAlias = Callable[[Flow, str, Any, Value], Value]


def through_layer(flow: Flow, path: str, layer: nn.Module, inputs: list[Value]) -> Value:
    """The units of a layer's output.

    Args:
        flow: learns what the layer reads and makes.
        path: of the layer in the model.
        layer: one that :mod:`torch.fx` does not look into.
        inputs: of each tensor that it gets.
    """
    rule = _rule_of(layer)
    if rule is not None and len(inputs) == 1:
        return rule(flow, path, layer, inputs[0])
    for x in inputs:
        _keep_all(flow, path, layer, x)
    return None


def _rule_of(layer: nn.Module) -> Rule | None:
    if computes_anew(layer) or not type(layer).forward.__module__.startswith("torch.nn"):
        return None
    return next((rule for kinds, rule in _RULES if isinstance(layer, kinds)), None)


def _keep_all(flow: Flow, path: str, layer: nn.Module, x: Value) -> None:
    flow.keep(x, f"are read by {path} ({type(layer).__name__}), which needs all of them")


def _linear(flow: Flow, path: str, layer: nn.Linear, x: Value) -> Value:
    if x is not None and x.after:
        _keep_all(flow, path, layer, x)
        if x.before is not None:
            flow.dimensions = x.last + 1
        x = None
    ids = flow.input(x, layer.in_features, f"are read by {path} in another width")
    flow.reads(path, "weight", 1, ids)
    made = flow.output(path, "weight", 0, layer.out_features)
    flow.carries(path, layer, "bias", made)
    before = x.before if x is not None else None if flow.dimensions is None else flow.dimensions - 1
    assumed = x.assumed if x is not None else False
    if x is None and before is None and flow.assumes_rows:
        before, assumed = 1, True
    return Channels(made, 0, before=before, assumed=assumed)


def _convolution(flow: Flow, path: str, layer: conv._ConvNd, x: Value) -> Value:
    spatial, groups = len(layer.kernel_size), layer.groups
    if x is not None and (x.after != spatial or x.before != 1 or len(x.ids) != layer.in_channels):
        _keep_all(flow, path, layer, x)
        x = None
    into, out = (0, 1) if layer.transposed else (1, 0)
    depthwise = groups == layer.in_channels and groups > 1 and not layer.transposed
    if groups == 1 or depthwise:
        made = flow.output(path, "weight", out, layer.out_channels)
        ids = flow.input(x, layer.in_channels, "")
        if depthwise:
            flow.ids.tie(made, np.repeat(ids, layer.out_channels // groups))
        else:
            flow.reads(path, "weight", into, ids)
        flow.carries(path, layer, "bias", made)
        return Channels(made, spatial)
    flow.keep(x, f"are read by {path}, a convolution of {groups} groups of channels")
    return None


def _norm(flow: Flow, path: str, layer: Any, x: Value) -> Value:
    """Batch and instance normalisation: each unit by itself, the latter over its places."""
    ids = None if x is None else x.widened(layer.num_features)
    placeless = isinstance(layer, instancenorm._InstanceNorm) and x is not None and not x.after
    if x is None or ids is None or placeless or x.before != 1:
        _keep_all(flow, path, layer, x)
        return None
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        flow.carries(path, layer, tensor, ids)
    flow.normalises(path, ids)
    flow.of_rows |= {path} if x.assumed else set()
    return replace(x, ids=ids, flattened="")


def _group_norm(flow: Flow, path: str, layer: nn.GroupNorm, x: Value) -> Value:
    """The units of a group stay or go together: a removed one would change the others' mean and variance."""
    ids = None if x is None else x.widened(layer.num_channels)
    if x is None or ids is None or layer.num_groups == 1 or x.before != 1:
        _keep_all(flow, path, layer, x)
        return None
    together = ids.reshape(layer.num_groups, -1)
    flow.ids.tie(together.ravel(), np.repeat(together[:, 0], together.shape[1]))
    for tensor in ("weight", "bias"):
        flow.carries(path, layer, tensor, ids)
    flow.normalises(path, ids)
    flow.of_rows |= {path} if x.assumed else set()
    return replace(x, ids=ids, flattened="")


def _prelu(flow: Flow, path: str, layer: nn.PReLU, x: Value) -> Value:
    if x is None or layer.num_parameters == 1:
        return x
    if len(x.ids) != layer.num_parameters or x.before != 1:
        _keep_all(flow, path, layer, x)
        return None
    flow.carries(path, layer, "weight", x.ids)
    flow.of_rows |= {path} if x.assumed else set()
    return x


def _each_by_itself(flow: Flow, path: str, layer: nn.Module, x: Value) -> Value:
    return x


def _spatial(flow: Flow, path: str, layer: nn.Module, x: Value) -> Value:
    """Pooling and padding within the dimensions after that of the units; torch's class names their number."""
    kind = next(each for each in type(layer).__mro__ if each.__module__.startswith("torch.nn"))
    if x is None:
        return None
    dimensions = int(kind.__name__[-2])
    if x.after != dimensions or x.before != 1:
        _keep_all(flow, path, layer, x)
        return None
    size = getattr(layer, "output_size", None)  # of adaptive pooling alone
    return replace(x, one_place=size in (1, (1,) * dimensions))


def _upsample(flow: Flow, path: str, layer: nn.Upsample, x: Value) -> Value:
    if x is not None and not x.after:
        _keep_all(flow, path, layer, x)
        return None
    return x and replace(x, one_place=False)


def _flatten(flow: Flow, path: str, layer: nn.Flatten, x: Value) -> Value:
    if x is None:
        return None
    if (layer.start_dim, layer.end_dim) == (1, -1):
        if x.assumed and not x.after and not x.flattened:
            raise MoreDimensionsError
        flat = x.flat()
        if flat is not None:
            return flat
    if (layer.start_dim, layer.end_dim) == (2, -1) and x.after and x.before == 1:
        return replace(x, after=1)
    _keep_all(flow, path, layer, x)
    return None


_RULES: list[tuple[Any, Rule]] = [
    (nn.Linear, _linear),
    (conv._ConvNd, _convolution),
    ((batchnorm._BatchNorm, instancenorm._InstanceNorm), _norm),
    (nn.GroupNorm, _group_norm),
    (nn.PReLU, _prelu),
    (nn.Flatten, _flatten),
    (nn.Upsample, _upsample),
    (
        (
            *(pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._LPPoolNd),
            *(pooling._AdaptiveMaxPoolNd, pooling._AdaptiveAvgPoolNd),
            *(padding._ConstantPadNd, padding._ReflectionPadNd, padding._ReplicationPadNd),
        ),
        _spatial,
    ),
    (
        (
            *(
                nn.Identity,
                nn.ReLU,
                nn.ReLU6,
                nn.LeakyReLU,
                nn.ELU,
                nn.CELU,
                nn.SELU,
                nn.GELU,
                nn.SiLU,
                nn.Mish,
            ),
            *(nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardshrink),
            *(nn.Softshrink, nn.Tanhshrink, nn.Softplus, nn.Softsign, nn.Threshold, dropout._DropoutNd),
        ),
        _each_by_itself,
    ),
]
