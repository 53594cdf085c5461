"""A party's model under its mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn, optim

from secretflow.ml.nn.fl.backend.torch.list_masks import ListMask, as_list
from secretflow.ml.nn.fl.backend.torch.masked_model import entry_as_tensor, masked_weights, prune_model
from secretflow.ml.nn.fl.pruning import Mask, PruneSettings, living_rate


class MaskedModel:
    """A torch model whose pruned weights are zero, after every step of its optimisers too.

    Weights are looked up by name whenever they are needed, so it does not matter how a model replaces them.

    Args:
        net: the model.
        optimizers: a hook on each sets pruned weights back, so that momentum cannot revive them.
        mask: of the model.

    Raises:
        ValueError: the mask has no entry, or is not one of this model.
    """

    def __init__(self, net: nn.Module, optimizers: Iterable[optim.Optimizer], mask: Mask) -> None:
        self._net = net
        self.use(mask)
        for optimizer in optimizers:
            optimizer.register_step_post_hook(lambda *_: self.zero_pruned())
        net.register_load_state_dict_post_hook(lambda *_: self.zero_pruned())

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
        factors = {
            name: entry_as_tensor(entry, weight) for name, weight, entry in masked_weights(self._net, mask)
        }
        self._mask = mask
        self._factors = factors
        self.zero_pruned()

    def zero_pruned(self) -> None:
        """Sets pruned weights to zero.

        Raises:
            ValueError: a weight is no parameter of the model any more, or has another shape.
        """
        # Not the parameters themselves: autograd would take a graph that holds one for spoilt.
        weights = [self._weight(name).data for name in self._factors]
        for (name, factor), weight in zip(self._factors.items(), weights, strict=True):
            if weight.shape != factor.shape:
                raise ValueError(
                    f"model must keep the shape of {name}, {tuple(factor.shape)}, got {tuple(weight.shape)}"
                )
            if weight.dtype != factor.dtype or weight.device != factor.device:
                self._factors[name] = factor.to(weight)
        torch._foreach_mul_(weights, list(self._factors.values()))

    def prune_if_due(self, settings: PruneSettings, epoch: float) -> bool:
        """Takes a step of pruning where one is due.

        Args:
            settings: what the user chose.
            epoch: how many epochs have been trained, the part of a begun one included.

        Returns:
            Whether it was due.
        """
        if not settings.step_due(epoch, living_rate(self._mask)):
            return False
        self.use(prune_model(self._net, self._mask, settings, epoch))
        return True

    def living_rates(self) -> dict[str, float]:
        """Fraction of living weights, of each prunable layer by name and of all under the empty name."""
        by_layer = {
            name: living_rate({name: entry}) for name, _, entry in masked_weights(self._net, self._mask)
        }
        return {"": living_rate(self._mask), **by_layer}

    def counts(self) -> tuple[list[int], list[int]]:
        """Weights and living weights of each layer; one whose weight two layers share is there once."""
        entries = self._mask.values()
        return [entry.size for entry in entries], [int(entry.astype(bool).sum()) for entry in entries]

    def list_for(self, tensors: Mapping[str, torch.Tensor]) -> ListMask:
        """The mask for those who know no names, see :func:`as_list`."""
        return as_list(tensors, self._mask)

    def entries(self) -> dict[str, torch.Tensor]:
        """The mask as tensors."""
        return {name: torch.tensor(entry) for name, entry in self._mask.items()}

    def holds_view(self, name: str) -> bool:
        """Whether a weight lies in the memory of another one, whose mask is its own."""
        return name in self._factors and name not in self._mask

    def living(self, parameters: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Of each parameter, by name, which elements the mask keeps, boolean."""
        return [self._factors.get(name, torch.ones_like(p)) != 0 for name, p in parameters.items()]

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
