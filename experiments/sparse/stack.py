"""Many models of one architecture, stacked: one pass trains or evaluates all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn, optim
from torch.func import functional_call, vmap
from torch.nn import functional as F

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {"adam": optim.Adam, "sgd": optim.SGD}


class _MatrixConv2d(nn.Conv2d):
    """A convolution as a product of matrices: stacked, it is one batched product instead of many groups."""

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)  # type: ignore[arg-type]
        out = torch.einsum("ok,bkl->bol", self.weight.flatten(1), columns)
        if self.bias is not None:
            out = out + self.bias[:, None]
        height = (x.shape[2] + 2 * int(self.padding[0]) - self.kernel_size[0]) // self.stride[0] + 1
        return out.unflatten(2, (height, -1))


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
        matrices: whether convolutions are computed as products of matrices, which a GPU does faster.

    Attributes:
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
        if device != "cpu" if matrices is None else matrices:
            for module in self._net.modules():
                if type(module) is nn.Conv2d:
                    module.__class__ = _MatrixConv2d
        self.weights: dict[str, Tensor] = {
            name: torch.stack([dict(net.named_parameters())[name].detach() for net in nets])
            .repeat_interleave(parties, 0)
            .to(device)
            .requires_grad_()
            for name, _ in nets[0].named_parameters()
        }
        self._optimizer = OPTIMIZERS[optimizer](
            self.weights.values(),
            lr=learning_rate,  # type: ignore[call-arg]
            weight_decay=weight_decay,
        )
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

    def step(self, x: Tensor, y: Tensor, row_weights: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """One step of the optimiser; what a mask has pruned is zero afterwards.

        Args:
            x: (models, rows, ...).
            y: classes, int64 of shape (models, rows).
            row_weights: float of shape (models, rows); a model's loss is the sum of weight times loss.
            masks: of the shape of the weights by name, 0 and 1.

        Returns:
            Each model's loss before the step.
        """
        self._optimizer.zero_grad()
        scores = self.forward(x)
        by_row = F.cross_entropy(scores.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)
        losses = (by_row * row_weights).sum(1)
        losses.sum().backward()
        self._optimizer.step()
        self.zero_pruned(masks)
        return losses.detach()

    def zero_pruned(self, masks: Mapping[str, Tensor]) -> None:
        """Sets what masks have pruned to zero."""
        if masks:
            torch._foreach_mul_([self.weights[name].data for name in masks], list(masks.values()))

    def forward(self, x: Tensor) -> Tensor:
        """What the nets give, (models, rows, classes)."""
        used = {
            name: _power(values, self._exponents[name]) if name in self._exponents else values
            for name, values in self.weights.items()
        }
        return vmap(lambda own, rows: functional_call(self._net, own, (rows,)))(used, x)


def _power(values: Tensor, exponent: Tensor) -> Tensor:
    # Away from zero, where the derivative of a root is infinite; a weight of exactly zero stays there.
    return values * values.abs().clamp_min(1e-12).pow(exponent - 1)
