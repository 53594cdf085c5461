"""The groups of units of a model that may be removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx, nn

from secretflow.ml.nn.fl.backend.torch.masked_model import tensors_of
from secretflow.ml.nn.fl.backend.torch.prunable import prunable_parameters
from secretflow.ml.nn.fl.backend.torch.shared_memory import views_of
from secretflow.ml.nn.fl.pruning import Prunable
from secretflow.ml.nn.fl.pruning.structure import Axis, Structure, UnitGroup

from .dimensions import dimensions_of
from .flow import Flow, first_names
from .functions import Called, through_function
from .ids import Channels, Ids, MoreDimensionsError
from .layers import through_layer
from .rows_alone import guard
from .tracing import traced, without_steps

_WHAT = {
    "filter": "output channels of convolutions",
    "neuron": "outputs of linear layers",
    "unit": "output channels of convolutions or outputs of linear layers",
}


@dataclass(frozen=True, eq=False)
class Followed:
    """A model's graph, and its units.

    Attributes:
        graph: of its ``forward``.
        flow: where its units are.
        structure: the groups that may be removed.
        kept: by the name of a weight whose units must stay the reason.
    """

    graph: fx.Graph
    flow: Flow
    structure: Structure
    kept: dict[str, str]


def unit_groups(model: nn.Module, prune_structure: str, choice: Prunable = None) -> Structure:
    """The groups of units of a model that may be removed.

    Args:
        model: the model; also without memory for its weights ("meta").
        prune_structure: "filter", "neuron" or "unit", see
            :class:`~secretflow.ml.nn.fl.pruning.PruneSettings`.
        choice: which weights may lose outputs, see there as ``prunable``; None chooses all that can.

    Raises:
        ValueError: the model cannot be traced; nothing may be removed; or a chosen weight's units must stay.
            The message names a layer.
    """
    model = without_steps(model)
    chosen = prunable_parameters(model, choice)
    found = followed(model)
    kinds = ("filter", "neuron") if prune_structure == "unit" else (prune_structure,)
    kept = dict(found.kept)
    groups = []
    for group in found.structure:
        makers = [axis.name for axis in group.made_by]
        # A convolution's channels may be scaled by a linear layer: then these are filters.
        if min(_kind(model, name) for name in makers) not in kinds:
            continue
        missing = [name for name in makers if name not in chosen]
        kept.update(
            dict.fromkeys(makers, f"are tied to those of {', '.join(missing)}, which prunable leaves out")
        )
        if not missing:
            groups.append(group)
    removable = {axis.name for group in groups for axis in group.made_by}
    stay = [name for name in chosen if name not in removable and (choice or _kind(model, name) in kinds)]
    if not groups or (choice is not None and stay):
        why = kept.get(stay[0], f"are not {_WHAT[prune_structure]}") if stay else ""
        told = f"{stay[0]}, whose units {why}" if stay else f"{type(model).__name__}, which has none"
        raise ValueError(
            f"model must have {_WHAT[prune_structure]} that may be removed with "
            f"prune_structure={prune_structure!r}, got {told}"
        )
    return tuple(groups)


def guard_rows(model: nn.Module) -> None:
    """Has the layers of a model refuse sequences where its units are those of rows, see :mod:`.rows_alone`.

    Args:
        model: changed in place: layers get hooks.
    """
    for path in followed(model).flow.of_rows:
        guard(model.get_submodule(path), path)


def _kind(model: nn.Module, name: str) -> str:
    """Which structure a weight's outputs are."""
    layer = model.get_submodule(name.rpartition(".")[0])
    if isinstance(layer, nn.Linear):
        return "neuron"
    return "filter" if isinstance(layer, nn.modules.conv._ConvNd) else "none"


def followed(model: nn.Module) -> Followed:
    """Follows all units of a model.

    Args:
        model: the model; left as it is.

    Raises:
        ValueError: it cannot be traced, or its weights overlap.
    """
    model = without_steps(model)
    try:
        return _followed(model, assumes_rows=True)
    except MoreDimensionsError:
        return _followed(model, assumes_rows=False)


def _followed(model: nn.Module, assumes_rows: bool) -> Followed:
    tensors = tensors_of(model)
    views = views_of(tensors, [name for name, value in tensors.items() if value.dim() >= 2])
    graph = traced(model)
    flow = Flow(first_names(model, views), assumes_rows=assumes_rows)
    known: dict[fx.Node, Any] = {}
    dimensions = dimensions_of(graph, model)
    for node in graph.nodes:
        args, kwargs = (fx.node.map_arg(part, known.get) for part in (node.args, node.kwargs))
        if node.op == "call_module":
            layer = model.get_submodule(str(node.target))
            inputs = [known[each] for each in node.all_input_nodes]
            units = [each if isinstance(each, Channels) else None for each in inputs]
            flow.dimensions = dimensions.get(node.all_input_nodes[0]) if inputs else None
            known[node] = through_layer(flow, str(node.target), layer, units)
        elif node.op in ("call_function", "call_method"):
            known[node] = through_function(flow, Called(node, args, kwargs))
        else:
            known[node] = None
            for each in node.all_input_nodes:  # of the output alone
                if isinstance(known[each], Channels):
                    flow.keep(known[each], "are the model's output")
    flow.keep_shared(views)
    for node in graph.nodes:
        if node.op == "get_attr":
            name = flow.names.get(str(node.target))
            flow.keep_array(name, f"are in {name}, which is used outside of its layer")
    structure, kept = _grouped(flow)
    return Followed(graph, flow, structure, kept)


def _grouped(flow: Flow) -> tuple[Structure, dict[str, str]]:
    """The groups: layers with a unit in common are in one; and why the others' units must stay."""
    roots = {key: flow.ids.roots(ids) for key, ids in flow.axes.items()}
    layers = Ids()
    layers.fresh(flow.ids.count())
    made = [key for key in flow.axes if "makes" in flow.roles[key]]
    for key in made:
        layers.tie(roots[key][1:], roots[key][:-1])
    by_group: dict[int, list[tuple[str, int]]] = {}
    for key in made:
        by_group.setdefault(int(layers.roots(roots[key][:1])[0]), []).append(key)
    groups: list[UnitGroup] = []
    kept: dict[str, str] = {}
    for makers in by_group.values():
        units = np.unique(np.concatenate([roots[key] for key in makers]))
        reason = flow.ids.reason(units)
        read_by = _axes(flow, roots, units, "reads")
        if reason is None and not read_by:
            reason = "are read by no layer"
        if reason is not None:
            kept.update({name: reason for name, _ in makers})
            continue
        groups.append(
            UnitGroup(
                name=makers[0][0],
                size=len(units),
                made_by=_axes(flow, roots, units, "makes"),
                read_by=read_by,
                carried_by=_axes(flow, roots, units, "carries"),
            )
        )
    return tuple(groups), kept


def _axes(
    flow: Flow, roots: dict[tuple[str, int], np.ndarray], units: np.ndarray, role: str
) -> tuple[Axis, ...]:
    """Where units are in the arrays that have a role."""
    found = []
    for (name, dim), own in roots.items():
        if role in flow.roles[name, dim]:
            places = np.searchsorted(units, own).clip(max=len(units) - 1)
            numbers = np.where(units[places] == own, places, -1)
            if (numbers >= 0).any():
                found.append(Axis(name, dim, numbers))
    return tuple(found)
