"""A party's model under its mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn, optim

from secretflow.ml.nn.fl.backend.torch.list_masks import ListMask, as_list
from secretflow.ml.nn.fl.backend.torch.masked_model import entry_as_tensor, prune_model, views_in
from secretflow.ml.nn.fl.backend.torch.shared_memory import View, with_views
from secretflow.ml.nn.fl.pruning import Mask, PruneSettings, density


class MaskedModel:
    """A torch model whose pruned weights are zero: after every step of its optimisers, after every state that
    it loads, and whenever it is evaluated.

    Weights are looked up by name whenever they are needed, so it does not matter how a model replaces them.

    Args:
        net: the model.
        optimizers: a hook on each sets pruned weights back, so that momentum cannot revive them.
        mask: of the model.
        step_power: see :class:`~secretflow.ml.nn.fl.pruning.PruneSettings`.

    Raises:
        ValueError: the mask has no entry, or is not one of this model.
    """

    def __init__(
        self, net: nn.Module, optimizers: Iterable[optim.Optimizer], mask: Mask, step_power: float = 0.0
    ) -> None:
        self._net = net
        self._mask: Mask = {}
        self._views: dict[str, View] = {}
        self._step_power = step_power
        self._before: list[torch.Tensor] = []
        self.use(mask)
        for optimizer in optimizers:
            if step_power:
                optimizer.register_step_pre_hook(lambda *_: self._begin_step())
                optimizer.register_step_post_hook(lambda *_: self._stretch_step())
            optimizer.register_step_post_hook(lambda *_: self.zero_pruned())
        # Methods, so that a copy of the net has a mask of its own, and the net can be pickled.
        net.register_load_state_dict_post_hook(self._after_load)
        net.register_forward_pre_hook(self._before_forward)

    @property
    def mask(self) -> Mask:
        """The mask."""
        return self._mask

    def use(self, mask: Mask) -> None:
        """Takes another mask; what it has pruned becomes zero.

        Args:
            mask: of the model.

        Raises:
            ValueError: as of the class; nothing was changed then.
        """
        if not mask:
            raise ValueError("mask must have an entry for at least one prunable weight, got none")
        # Only once, as long as the same weights are masked: a view stays under its mask when it comes apart.
        same = self._mask.keys() == mask.keys()
        views = self._views if same else views_in(self._net, mask)
        entries = self._entries_of(mask, views)
        factors = {name: entry_as_tensor(entry, self._weight(name)) for name, entry in entries.items()}
        self._weights_for(factors)
        self._mask, self._views, self._entries, self._factors = mask, views, entries, factors
        self._stretches = [density({name: entry}) ** -self._step_power for name, entry in mask.items()]
        self.zero_pruned()

    def zero_pruned(self) -> None:
        """Sets pruned weights to zero.

        Raises:
            ValueError: a weight is no parameter of the model any more, or has another shape.
        """
        weights = self._weights_for(self._factors)
        for name, weight in zip(self._factors, weights, strict=True):
            if weight.dtype != self._factors[name].dtype or weight.device != self._factors[name].device:
                self._factors[name] = self._factors[name].to(weight)
        torch._foreach_mul_(weights, list(self._factors.values()))

    def prune_if_due(self, settings: PruneSettings, epoch: float) -> bool:
        """Takes a step of pruning where one is due.

        Args:
            settings: what the user chose.
            epoch: how many epochs have been trained, the part of a begun one included.

        Returns:
            Whether it was due.
        """
        if not settings.step_due(epoch, density(self._mask)):
            return False
        self.use(prune_model(self._net, self._mask, settings, epoch, self._views))
        return True

    def densities(self) -> dict[str, float]:
        """Fraction of living weights, of each prunable layer by name and of all under the empty name."""
        by_layer = {
            name: density({name: entry}) for name, entry in with_views(self._mask, self._views).items()
        }
        return {"": density(self._mask), **by_layer}

    def counts(self) -> tuple[list[int], list[int]]:
        """Weights and living weights of each layer; one whose weight two layers share is there once."""
        entries = self._mask.values()
        return [entry.size for entry in entries], [int(entry.astype(bool).sum()) for entry in entries]

    def list_for(self, tensors: Mapping[str, torch.Tensor]) -> ListMask:
        """The mask for those who know no names, see :func:`as_list`."""
        return as_list(tensors, self._entries)

    def entries_for(self, tensors: Mapping[str, torch.Tensor]) -> ListMask:
        """For each tensor, by name, its entry of the mask; None where all of it lives."""
        return [self._entries.get(name) for name in tensors]

    def entries(self) -> dict[str, torch.Tensor]:
        """The mask as tensors."""
        return {name: torch.tensor(entry) for name, entry in self._mask.items()}

    def holds_view(self, name: str) -> bool:
        """Whether a weight lies in the memory of another one, whose mask is its own."""
        return name in self._views

    def living(self, parameters: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Of each parameter, by name, which elements the mask keeps, boolean."""
        return [self._factors.get(name, torch.ones_like(p)) != 0 for name, p in parameters.items()]

    def _entries_of(self, mask: Mask, views: Mapping[str, View]) -> Mask:
        """All entries that follow from a mask."""
        return with_views(mask, views)

    def _begin_step(self) -> None:
        """Keeps the weights that a step begins with, where one will be stretched."""
        if any(stretch != 1 for stretch in self._stretches):
            self._before = [weight.clone() for weight in self._weights_for(self._own_factors())]

    def _stretch_step(self) -> None:
        """Multiplies what a step has changed with the stretch of each layer."""
        if not self._before:
            return
        weights = self._weights_for(self._own_factors())
        for stretch, before, weight in zip(self._stretches, self._before, weights, strict=True):
            torch.lerp(before, weight, stretch, out=weight)
        self._before = []

    def _own_factors(self) -> dict[str, torch.Tensor]:
        """Without those of views, which change with the weight that they lie in."""
        return {name: self._factors[name] for name in self._mask}

    def _after_load(self, net: nn.Module, _: object) -> None:
        self.zero_pruned()

    def _before_forward(self, net: nn.Module, _: object) -> None:
        if not net.training:
            self.zero_pruned()

    def _weights_for(self, factors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """The weights of some names; writing into them does not spoil a graph of autograd that holds one."""
        weights = [self._weight(name).data for name in factors]
        for (name, factor), weight in zip(factors.items(), weights, strict=True):
            if weight.shape != factor.shape:
                raise ValueError(
                    f"model must keep the shape of {name}, {tuple(factor.shape)}, got {tuple(weight.shape)}"
                )
        return weights

    def _weight(self, name: str) -> torch.Tensor:
        # By dictionaries: get_parameter takes several times as long, and this is done at every step.
        *path, last = name.split(".")
        layer: nn.Module | None = self._net
        for part in path:
            layer = None if layer is None else layer._modules.get(part)
        weight: torch.Tensor | None = None
        if layer is not None:  # a view of a weight may be a buffer
            weight = layer._parameters.get(last, layer._buffers.get(last))
        if weight is None:
            raise ValueError(f"model must keep its parameter {name}, got a model without it")
        return weight
