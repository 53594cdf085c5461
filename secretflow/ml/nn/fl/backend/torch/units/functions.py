"""What functions and methods of tensors do with units."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from .flow import Flow
from .ids import Channels, MoreDimensionsError


@dataclass(frozen=True, eq=False)
class SizeOf:
    """The shape of a tensor, or its number of rows."""

    of: Channels
    rows: bool = False


Known: TypeAlias = "Channels | SizeOf | None"


class NotFollowedError(Exception):
    """A function does something with units that no rule covers."""


@dataclass(frozen=True, eq=False)
class Called:
    """A call in the graph.

    Attributes:
        node: the call.
        args: its arguments; of those that are tensors or sizes what is known.
        kwargs: those by name.
    """

    node: fx.Node
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by its place or its name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def units(self) -> Channels:
        """What is known of the first argument, if no other one is a tensor or computed from one."""
        first = self.argument(0, "input")
        others = [*self.node.args[1:], *(v for name, v in self.node.kwargs.items() if name != "input")]
        if not isinstance(first, Channels) or any(isinstance(each, fx.Node) for each in _flat(others)):
            raise NotFollowedError
        return first


Rule: TypeAlias = Callable[[Flow, Called], Known]


def through_function(flow: Flow, call: Called) -> Known:
    """What is known of a function's result.

    Args:
        flow: learns which units are tied and which must stay.
        call: of a function or a method.
    """
    rule = _RULES.get(call.node.target)
    try:
        if rule is not None:
            return rule(flow, call)
    except NotFollowedError:
        pass
    first = next(iter(_flat(call.args)), None)
    if call.node.target in _OF_MORE and isinstance(first, Channels) and first.assumed:
        raise MoreDimensionsError
    for each in _flat([*call.args, *call.kwargs.values()]):
        if isinstance(each, SizeOf) and not each.rows:
            each = each.of
        if isinstance(each, Channels):
            flow.keep(each, f"are read by {call.node.name}, which needs all of them")
    return None


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _flat(value)
        else:
            yield value


def _each_by_itself(flow: Flow, call: Called) -> Known:
    return call.units()


def _arithmetic(flow: Flow, call: Called) -> Known:
    """What is added up or multiplied is tied."""
    a, b = (call.argument(0, "input"), call.argument(1, "other"))
    if isinstance(a, Channels) and isinstance(b, Channels):
        if (a.before, a.after, a.flattened, len(a.ids)) != (b.before, b.after, b.flattened, len(b.ids)):
            raise NotFollowedError
        flow.ids.tie(a.ids, b.ids)
        return replace(a, one_place=a.one_place and b.one_place, assumed=a.assumed and b.assumed)
    number = (int, float)
    if isinstance(a, Channels) and isinstance(b, number):
        return a
    if isinstance(b, Channels) and isinstance(a, number):
        return b
    raise NotFollowedError


def _cat(flow: Flow, call: Called) -> Known:
    parts, dim = call.argument(0, "tensors"), call.argument(1, "dim", 0)
    if not isinstance(parts, (tuple, list)) or not all(isinstance(part, Channels) for part in parts):
        raise NotFollowedError
    first = parts[0]
    alike = len({(part.before, part.after) for part in parts}) == 1
    if not alike or any(part.flattened for part in parts) or dim not in (first.before, -1 - first.after):
        raise NotFollowedError
    return replace(first, ids=np.concatenate([part.ids for part in parts]))


def _flatten(flow: Flow, call: Called) -> Known:
    x = call.units()
    dims = call.argument(1, "start_dim", 0), call.argument(2, "end_dim", -1)
    if dims == (1, -1):
        return _flat_units(x)
    if dims == (2, -1) and x.after and x.before == 1:
        return replace(x, after=1)
    raise NotFollowedError


def _flat_units(x: Channels) -> Channels:
    if x.assumed and not x.after and not x.flattened:
        raise MoreDimensionsError
    flat = x.flat()
    if flat is None:
        raise NotFollowedError
    return flat


def _view(flow: Flow, call: Called) -> Known:
    """Views of two dimensions, which make everything but rows flat."""
    x, sizes = call.args[0], list(_flat(call.args[1:]))
    if not isinstance(x, Channels) or len(sizes) != 2:
        raise NotFollowedError
    rows, width = sizes
    if not (isinstance(rows, int) or (isinstance(rows, SizeOf) and rows.rows)) or not isinstance(width, int):
        raise NotFollowedError
    flat = _flat_units(x)
    if width != -1:
        # One place of several might be made a row each.
        if flat.widened(width) is None or (x.after and width == len(x.ids) and not x.one_place):
            raise NotFollowedError
        flow.views_of_width[call.node] = flat
    return flat


def _over_places(flow: Flow, call: Called) -> Known:
    """Means and sums over dimensions after that of the units."""
    x = call.units()
    dims, keep = call.argument(1, "dim"), call.argument(2, "keepdim", False)
    dims = {dims} if isinstance(dims, int) else set(dims or ())
    if not dims or not all(x.is_place(dim) for dim in dims):
        raise NotFollowedError
    left = 0 if keep else len({dim if dim < 0 else dim - x.last - 1 for dim in dims})
    return replace(x, after=x.after - left, one_place=x.one_place or len(dims) == x.after)


def _squeeze(flow: Flow, call: Called) -> Known:
    x, dim = call.units(), call.argument(1, "dim")
    if not x.is_place(dim) or not x.one_place:
        raise NotFollowedError
    return replace(x, after=x.after - 1)


def _pad(flow: Flow, call: Called) -> Known:
    x = call.units()
    if len(call.argument(1, "pad", ())) > 2 * x.after:
        raise NotFollowedError
    return replace(x, one_place=False)


def _pooling(dimensions: int, adaptive: bool = False) -> Rule:
    def rule(flow: Flow, call: Called) -> Known:
        x = call.units()
        if x.after != dimensions or x.before != 1:
            raise NotFollowedError
        return replace(x, one_place=adaptive and call.argument(1, "output_size") in (1, (1,) * dimensions))

    return rule


def _interpolate(flow: Flow, call: Called) -> Known:
    x = call.units()
    if not x.after:
        raise NotFollowedError
    return replace(x, one_place=False)


def _attribute(flow: Flow, call: Called) -> Known:
    x, name = call.args[:2]
    if isinstance(x, Channels) and name == "shape":
        return SizeOf(x)
    if name in ("device", "dtype", "ndim"):
        return None
    raise NotFollowedError


def _dim(flow: Flow, call: Called) -> Known:
    return None


def _size(flow: Flow, call: Called) -> Known:
    x, dim = call.argument(0, "self"), call.argument(1, "dim")
    return _size_of(x, dim) if isinstance(x, Channels) else None


def _item(flow: Flow, call: Called) -> Known:
    if isinstance(call.args[0], SizeOf) and not call.args[0].rows:
        return _size_of(call.args[0].of, call.args[1])
    raise NotFollowedError


def _size_of(x: Channels, dim: Any) -> Known:
    if dim is None:
        return SizeOf(x)
    if dim == 0:
        return SizeOf(x, rows=True)
    if x.is_place(dim):
        return None
    raise NotFollowedError


_OF_MORE: set[Any] = set()
"""Functions that are called on dimensions between the rows and the units, if there are any."""
_RULES: dict[Any, Rule] = {"size": _size, "dim": _dim, getattr: _attribute, operator.getitem: _item}


def _register(rule: Rule, names: str) -> None:
    """A rule for all functions, operators and methods of some names, in place or not."""
    for name in names.split():
        for place in (torch, F, operator):
            for function in (getattr(place, each, None) for each in (name, f"{name}_", f"i{name}")):
                if callable(function):
                    _RULES[function] = rule
        _RULES[name] = _RULES[f"{name}_"] = rule


_register(
    _each_by_itself,
    "relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid logsigmoid tanh hardtanh hardswish "
    "hardsigmoid hardshrink softplus softsign softshrink tanhshrink threshold abs neg exp log log1p sqrt "
    "rsqrt square clamp clip pow erf sin cos reciprocal contiguous clone detach float dropout dropout1d "
    "dropout2d dropout3d alpha_dropout feature_alpha_dropout",
)
_register(_arithmetic, "add sub mul div truediv maximum minimum")
_register(_cat, "cat concat concatenate")
_register(_flatten, "flatten")
_register(_view, "view reshape")
_register(_over_places, "mean sum amax amin")
_register(_squeeze, "squeeze")
_register(_pad, "pad")
_register(_interpolate, "interpolate")
for _dims in (1, 2, 3):
    _register(_pooling(_dims), f"max_pool{_dims}d avg_pool{_dims}d lp_pool{_dims}d")
    _register(_pooling(_dims, adaptive=True), f"adaptive_max_pool{_dims}d adaptive_avg_pool{_dims}d")
for _name in [
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "logsumexp",
    "norm",
    "transpose",
    "permute",
    "swapaxes",
    "movedim",
]:
    _OF_MORE |= {_name, getattr(torch, _name)}
