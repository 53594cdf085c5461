"""A server that chooses the first layer, and reads rows off averages of any number of parties.

Every unit of the layer measures the same projection of the row, against thresholds that ascend from unit to
unit and cut what such rows show into parts of equal size, bins. The next layer treats all units alike. So the
gradients of two neighbouring units differ by the rows of one bin, and a row that is alone in its bin is read
exactly, with nothing to search. Secure aggregation changes nothing about it: the sum over parties is what is
read. To use as a demonstration of what parties give away who train on whatever weights they are sent; a party
refuses such weights (:mod:`secretflow.ml.nn.fl.worker.incoming`).

Source: Fowl et al., "Robbing the Fed: Directly obtaining private data in federated learning with modified
models", ICLR 2022, section 3; Boenisch et al., "When the curious abandon honesty: Federated learning is not
private", EuroS&P 2023, have units that few rows switch on instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.observation import Observation
from secretflow.ml.nn.fl.attacks.public import PublicRows

_LEAST = 1e-4
"""Difference of two units' bias gradients, relative to the largest one, below which a bin is empty."""

_SLACK = 1e-3
"""How far a row's projection may lie outside of its bin, relative to the span of all bins."""


def imprint_weights(
    model: Callable[[], nn.Module], weights: Mapping[str, torch.Tensor], public: PublicRows, seed: int = 0
) -> dict[str, torch.Tensor]:
    """The weights that such a server hands out.

    Args:
        model: builds a net that begins with a fully connected layer with bias, a ReLU and another one.
        weights: its ``state_dict``, of which those two layers are changed.
        public: rows like those of the parties, which tell where to cut; labels do not count.
        seed: of the projection.

    Returns:
        A ``state_dict``; tensors that are not changed are those that were given.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: the net is another one.
    """
    _validate.check(callable(model), "model", model, "a function without arguments", TypeError)
    _validate.instance("weights", weights, Mapping, "a mapping from names to tensors")
    _validate.instance("public", public, PublicRows, "PublicRows")
    _validate.integer("seed", seed, 0)
    net = model()
    first, second = _layers(net)
    missing = [name for name in net.state_dict() if name not in weights]
    _validate.check(not missing, "weights", f"none of {missing}", "the state_dict of the net")
    found = dict(weights)
    weight, next_weight = found[f"{first}.weight"], found[f"{second}.weight"]
    rows = public.x.flatten(1).double()
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(rows.shape[1], generator=generator, dtype=torch.float64)
    direction = direction / direction.norm()
    parts = torch.linspace(0, 1, len(weight) + 1, dtype=torch.float64)[:-1]
    thresholds = torch.quantile(rows @ direction, parts)
    found[f"{first}.weight"] = direction.expand(weight.shape).to(weight).clone()
    found[f"{first}.bias"] = -thresholds.to(weight)
    found[f"{second}.weight"] = next_weight[:, :1].expand(next_weight.shape).clone() / len(weight)
    return found


def read_imprint(observation: Observation) -> torch.Tensor:
    """The rows that are alone in their bins.

    Args:
        observation: of an upload or an average of any number of rows, under weights of
            :func:`imprint_weights`; on other weights it finds nothing that is a row.

    Returns:
        float64 of shape (found, *image_shape), by ascending projection; a few of them may be mixtures of rows
        that share a bin.

    Raises:
        TypeError: it is no observation.
        ValueError: the net is another one.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    net = observation.model()
    first, _ = _layers(net)
    numbers = {name: number for number, (name, _) in enumerate(net.named_parameters())}
    of_weight, of_bias = (
        observation.gradients[numbers[f"{first}.{part}"]].detach().cpu().double()
        for part in ("weight", "bias")
    )
    tensors = observation.pruned_weights()
    weight, bias = (tensors[f"{first}.{part}"].detach().cpu().double() for part in ("weight", "bias"))
    thresholds = -bias
    order = thresholds.argsort()
    # Behind the last threshold there is nobody left to take off.
    rows = torch.diff(of_weight[order], dim=0, append=torch.zeros_like(of_weight[:1]))
    sums = torch.diff(of_bias[order], append=torch.zeros_like(of_bias[:1]))
    ends = torch.cat([thresholds[order], torch.full((1,), torch.inf, dtype=torch.float64)])
    filled = sums.abs() > _LEAST * sums.abs().max()
    rows = rows[filled] / sums[filled, None]
    places = (rows * weight[order][filled]).sum(dim=1)
    slack = _SLACK * (thresholds.max() - thresholds.min())
    within = (places >= ends[:-1][filled] - slack) & (places <= ends[1:][filled] + slack)
    low, high = observation.bounds
    within &= ((rows >= low - _SLACK) & (rows <= high + _SLACK)).all(dim=1)
    return rows[within].reshape(-1, *observation.image_shape).clamp(low, high)


def _layers(net: nn.Module) -> tuple[str, str]:
    """Names of the first two layers that have weights."""
    leaves = [
        (name, module)
        for name, module in net.named_modules()
        if not list(module.children()) and not isinstance(module, nn.Flatten)
    ]
    kinds = [type(module) for _, module in leaves[:3]]
    biased = bool(leaves) and getattr(leaves[0][1], "bias", None) is not None
    what = "one that begins with a fully connected layer with bias, a ReLU and another such layer"
    fits = kinds == [nn.Linear, nn.ReLU, nn.Linear] and biased
    _validate.check(fits, "model", [kind.__name__ for kind in kinds], what)
    return leaves[0][0], leaves[2][0]
