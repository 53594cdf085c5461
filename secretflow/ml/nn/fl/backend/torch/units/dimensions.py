"""How many dimensions the tensors of a graph have, where the graph says so."""

from __future__ import annotations

from torch import fx, nn
from torch.nn.modules import conv


def dimensions_of(graph: fx.Graph, model: nn.Module) -> dict[fx.Node, int]:
    """How many dimensions tensors have, of those of which that is sure.

    Args:
        graph: of the model.
        model: the model.
    """
    found: dict[fx.Node, int] = {}
    for node in graph.nodes:
        inputs = node.all_input_nodes
        own = found.get(inputs[0]) if inputs else None
        if node.op == "call_module":
            own = _behind(model.get_submodule(str(node.target)), own)
        elif node.op in ("call_function", "call_method"):
            own = _result(node, own)
        else:
            own = None
        if own is not None:
            found[node] = own
    return found


def _behind(layer: nn.Module, own: int | None) -> int | None:
    if isinstance(layer, conv._ConvNd):
        return len(layer.kernel_size) + 2
    if isinstance(layer, nn.Flatten):
        return 2 if (layer.start_dim, layer.end_dim) == (1, -1) else None
    return None if isinstance(layer, (nn.Unflatten, nn.RNNBase, nn.Embedding)) else own


_KEEP = ("relu", "sigmoid", "tanh", "gelu", "silu", "dropout", "softmax", "contiguous", "clone", "float")


def _result(node: fx.Node, own: int | None) -> int | None:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in ("view", "reshape"):
        sizes = (
            node.args[1] if len(node.args) == 2 and isinstance(node.args[1], (tuple, list)) else node.args[1:]
        )
        whole = len(sizes) > 1 or isinstance(sizes[0], int)
        return len(sizes) if whole else None
    if name == "flatten" and node.args[1:] == (1,) and not node.kwargs:
        return 2
    if name in ("permute", "transpose", "swapaxes"):
        return len(node.args) - 1 if name == "permute" and len(node.args) > 2 else own
    if name == "unsqueeze":
        return None if own is None else own + 1
    return own if name in _KEEP else None
