"""The attacked net as an attacker runs it: in the mode it was trained in, with weights as arguments.

``functional`` calls leave the net and the weights as they are, whatever a layer writes into its buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

Tensors = Mapping[str, torch.Tensor]

_ONCE = ("flash", "mem_efficient", "cudnn")
"""Kernels of attention that can be differentiated once, also those of the CPU."""


def in_mode(net: nn.Module, evaluating: Collection[str] = ()) -> nn.Module:
    """Puts a net into the mode in which a gradient was computed.

    Normalisation layers in training mode forget their running statistics: they use those of the batch, and
    what they would note has no part in a gradient.

    Args:
        net: changed in place.
        evaluating: names of the modules that are in evaluation mode, with all inside of them; ``""`` is the
            whole net. The others are in training mode.

    Returns:
        The net.

    Raises:
        ValueError: the net has no module of such a name.
    """
    modules = dict(net.named_modules())
    net.train()
    for name in evaluating:
        if name not in modules:
            raise ValueError(f"evaluating must name modules of the net, {sorted(modules)}, got {name!r}")
        modules[name].eval()
    for module in modules.values():
        if isinstance(module, _NormBase) and module.training:
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return net


def batch_norms(net: nn.Module) -> list[str]:
    """Names of batch normalisation layers that can note statistics."""
    return [
        name
        for name, module in net.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]


def statistics_of(net: nn.Module, tensors: Tensors, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """What batch normalisation layers note of rows that pass a net together.

    Args:
        net: changed in place.
        tensors: all parameters and buffers by name.
        rows: at least two.

    Returns:
        All tensors, with the statistics of these rows.
    """
    net.load_state_dict(dict(tensors), strict=False)
    names = batch_norms(net)
    for module in map(net.get_submodule, names):
        assert isinstance(module, _BatchNorm)
        module.reset_running_stats()
        module.momentum = None  # the plain mean
    with torch.no_grad():
        net.train()(rows)
    noted = {name: value for name, value in net.state_dict().items() if name.rpartition(".")[0] in names}
    return {**tensors, **noted}


def first_names(net: nn.Module) -> dict[str, str]:
    """Of each name of a parameter or buffer the first one of the same tensor, under which it is passed."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for tensors in (net.named_parameters(remove_duplicate=False), net.named_buffers(remove_duplicate=False)):
        for name, tensor in tensors:
            names[name] = first.setdefault(id(tensor), name)
    return names


def by_first_name(net: nn.Module, tensors: Tensors) -> dict[str, torch.Tensor]:
    """Tensors by the names under which they are passed; those that a net does not have are left out."""
    names = first_names(net)
    return {names[name]: value for name, value in reversed(list(tensors.items())) if name in names}


def called(net: nn.Module, tensors: Tensors, x: torch.Tensor) -> Any:
    """What a net gives with other weights.

    Args:
        net: of :func:`in_mode`; left as it is.
        tensors: parameters and buffers by name, left as they are; of a tied parameter the first name counts.
        x: features of a batch.
    """
    buffers = {name: buffer for name, buffer in net.named_buffers()}
    given = by_first_name(net, tensors)
    # Copies, for a layer may write into its buffers, which must not reach anybody else's.
    own = {name: given.get(name, buffer).clone() for name, buffer in buffers.items()}
    return functional_call(net, {**given, **own}, (x,))


@contextmanager
def differentiable_twice(net: nn.Module) -> Iterator[None]:
    """Chooses, of the ways to compute attention and recurrent layers, those that have a second derivative.

    On a GPU convolutions keep the precision of single floats within, for what is seen of few living weights
    is told apart by it.

    Args:
        net: that is called within.
    """
    with ExitStack() as stack:
        for kernel in _ONCE:  # not torch.nn.attention, which torch 2.2 has not got
            enabled = getattr(torch.backends.cuda, f"{kernel}_sdp_enabled", None)
            if enabled is not None:
                enable = getattr(torch.backends.cuda, f"enable_{kernel}_sdp")
                stack.callback(enable, enabled())
                enable(False)
        recurrent = any(isinstance(module, nn.RNNBase) for module in net.modules())
        stack.enter_context(torch.backends.cudnn.flags(enabled=not recurrent, allow_tf32=False))
        yield


def is_random(net: nn.Module, call: Callable[[], torch.Tensor]) -> bool:
    """Whether a net's output is drawn anew in every call, such as with dropout in training mode.

    Args:
        net: whose devices' generators are left as they are.
        call: gives the net's output for one and the same input.
    """
    devices = {value.device.index for value in net.parameters() if value.device.type == "cuda"}
    with torch.random.fork_rng(devices), torch.no_grad():
        outputs = []
        for seed in range(4):
            torch.manual_seed(seed)
            outputs.append(call())
    return not all(torch.equal(outputs[0].nan_to_num(), other.nan_to_num()) for other in outputs[1:])


def check_not_random(net: nn.Module, call: Callable[[], torch.Tensor]) -> None:
    """Refuses a net whose output is drawn anew in every call.

    Args:
        net: for the message.
        call: see :func:`is_random`.

    Raises:
        ValueError: two outputs differ.
    """
    if is_random(net, call):
        raise ValueError(
            "evaluating must name every module that draws random numbers in training mode, as dropout does, "
            f"got {type(net).__name__}, whose output differs from call to call: no attacker can repeat what "
            "was drawn, so this attack would measure nothing"
        )
