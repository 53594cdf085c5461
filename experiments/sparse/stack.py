"""Many models of one architecture, stacked: one pass trains or evaluates all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.func import functional_call, vmap
from torch.nn import functional as F

from experiments.sparse.convolution import MatrixConv2d

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {"adam": optim.Adam, "sgd": optim.SGD}


@dataclass(frozen=True)
class Part:
    """A batch of some models of a stack.

    Attributes:
        models: their numbers, int64.
        x: features, (models, rows, ...).
        y: classes, int64 of shape (models, rows).
        row_weights: float of shape (models, rows); a model's loss is the sum of weight times loss.
    """

    models: Tensor
    x: Tensor
    y: Tensor
    row_weights: Tensor


class Stack:
    """Stacked models, each with its own weights and its own state of the optimiser.

    Args:
        build: builds a net without buffers; called once for each seed, behind ``torch.manual_seed``.
        seeds: of the initial weights of each run.
        parties: how many models each run has; all begin with the same weights.
        optimizer: of :data:`OPTIMIZERS`.
        learning_rate: of the optimiser.
        weight_decay: of the optimiser.
        device: where everything is computed.
        matrices: whether convolutions are computed as products of matrices; None does so on a GPU.

    Attributes:
        apart: whether each model is computed by itself. A CPU is several times faster with a convolution of
            one model than with that of all in one.
        weights: of each parameter by name all models' values, (runs * parties, ...).
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        seeds: Sequence[int],
        parties: int,
        *,
        optimizer: str,
        learning_rate: float,
        weight_decay: float,
        device: str = "cpu",
        matrices: bool | None = None,
    ) -> None:
        nets = []
        for seed in seeds:
            torch.manual_seed(seed)
            nets.append(build())
        if any(True for _ in nets[0].buffers()):
            raise ValueError("build must give a net without buffers, got one with some")
        self._net = deepcopy(nets[0])
        convolutions = [module for module in self._net.modules() if type(module) is nn.Conv2d]
        if device != "cpu" if matrices is None else matrices:
            for module in convolutions:
                module.__class__ = MatrixConv2d
            convolutions = []
        self.apart = bool(convolutions)
        self.weights: dict[str, Tensor] = {
            name: torch.stack([dict(net.named_parameters())[name].detach() for net in nets])
            .repeat_interleave(parties, 0)
            .to(device)
            .requires_grad_()
            for name, _ in nets[0].named_parameters()
        }
        # What a recording of the steps on a GPU needs.
        recorded: dict[str, Any] = {}
        if optimizer == "adam" and device != "cpu":
            recorded = {"capturable": True, "fused": True}
        self._optimizer = OPTIMIZERS[optimizer](
            self.weights.values(),
            lr=learning_rate,  # type: ignore[call-arg]
            weight_decay=weight_decay,
            **recorded,
        )
        self._factors: dict[str, Tensor] = {}
        self._rates: dict[str, Tensor] = {}
        self._exponents: dict[str, Tensor] = {}

    def reparametrise(self, exponents: Sequence[float], names: Sequence[str]) -> None:
        """Makes weights powers: a net computes with ``sign(v) |v|^exponent`` of what is trained, ``v``.

        Source: Schwarz et al., "Powerpropagation: A sparsity inducing weight reparameterisation", NeurIPS
        2021, section 2. Small weights then move slowly and large ones fast.

        Args:
            exponents: of each model; 1 changes nothing.
            names: of the parameters.
        """
        if all(exponent == 1 for exponent in exponents):
            return
        for name in names:
            values = self.weights[name]
            each = torch.tensor(exponents, device=values.device).reshape(-1, *[1] * (values.dim() - 1))
            self._exponents[name] = each
            values.data.copy_(_power(values.data, 1 / each))

    def scale_steps(self, rates: Sequence[float]) -> dict[str, Tensor]:
        """Multiplies every step of the optimiser with a factor for each model and layer.

        Args:
            rates: of each model, for all its layers.

        Returns:
            More factors by name, (models, 1, ...), 1 at first; whoever asked for them sets them.
        """
        for name, values in self.weights.items():
            shape = len(values), *[1] * (values.dim() - 1)
            self._factors[name] = torch.ones(shape, device=values.device)
            self._rates[name] = torch.tensor(rates, device=values.device).reshape(shape)
        return self._factors

    def decay(self, rates: Sequence[float]) -> None:
        """Sets anew what :meth:`scale_steps` was given."""
        for value in self._rates.values():
            value.copy_(torch.tensor(rates, device=value.device).reshape(value.shape))

    def state(self) -> list[Tensor]:
        """Weights, and what the optimiser keeps of them."""
        kept = [value for each in self._optimizer.state.values() for value in each.values()]
        return [*(value.data for value in self.weights.values()), *kept]

    def step(self, parts: Sequence[Part], masks: Mapping[str, Tensor]) -> Tensor:
        """One step of the optimiser; what a mask has pruned is zero afterwards.

        Args:
            parts: each model in one of them.
            masks: of the shape of the weights by name, 0 and 1.

        Returns:
            Each model's loss before the step.
        """
        self._optimizer.zero_grad()
        first = next(iter(self.weights.values()))
        losses = torch.zeros(len(first), device=first.device)
        order = torch.cat([part.models for part in parts])
        counts = [len(part.models) for part in parts]
        used = {name: values.index_select(0, order).split(counts) for name, values in self._used().items()}
        total = torch.zeros((), device=first.device)
        for k, part in enumerate(parts):
            scores = self._scores({name: values[k] for name, values in used.items()}, part.x)
            by_row = F.cross_entropy(scores.flatten(0, 1), part.y.flatten(), reduction="none").view(
                part.y.shape
            )
            each = (by_row * part.row_weights).sum(1)
            losses.index_copy_(0, part.models, each.detach())
            total = total + each.sum()
        total.backward()
        before = {name: self.weights[name].detach().clone() for name in self._factors}
        self._optimizer.step()
        for name, factor in self._factors.items():
            values = self.weights[name].data
            torch.lerp(before[name], values, factor * self._rates[name], out=values)
        self.zero_pruned(masks)
        return losses

    def zero_pruned(self, masks: Mapping[str, Tensor]) -> None:
        """Sets what masks have pruned to zero."""
        if masks:
            torch._foreach_mul_([self.weights[name].data for name in masks], list(masks.values()))

    def forward(self, x: Tensor) -> Tensor:
        """What the nets give, (models, rows, classes)."""
        return self._scores(self._used(), x)

    def _scores(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        if self.apart:
            one_by_one = ({name: values[k] for name, values in weights.items()} for k in range(len(x)))
            return torch.stack(
                [functional_call(self._net, own, (rows,)) for own, rows in zip(one_by_one, x, strict=True)]
            )
        return vmap(lambda own, rows: functional_call(self._net, own, (rows,)))(weights, x)

    def _used(self) -> dict[str, Tensor]:
        """What the nets compute with."""
        return {
            name: _power(values, self._exponents[name]) if name in self._exponents else values
            for name, values in self.weights.items()
        }


def _power(values: Tensor, exponent: Tensor) -> Tensor:
    # Away from zero, where the derivative of a root is infinite; a weight of exactly zero stays there.
    return values * values.abs().clamp_min(1e-12).pow(exponent - 1)
