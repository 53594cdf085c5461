"""A party's model under its mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn, optim

from secretflow.ml.nn.fl.backend.torch.masked_model import entry_as_tensor, masked_weights, prune_model
from secretflow.ml.nn.fl.pruning import Mask, PruneSettings, living_rate


class MaskedModel:
    """A torch model whose pruned weights are zero, after every step of its optimisers too.

    Args:
        net: the model.
        optimizers: a hook on each sets pruned weights back, so that momentum cannot revive them.
        mask: one entry for each array of two or more dimensions in the ``state_dict``.

    Raises:
        ValueError: the mask has no entry, or is not one of this model.
    """

    def __init__(self, net: nn.Module, optimizers: Iterable[optim.Optimizer], mask: Mask) -> None:
        self._net = net
        self.use(mask)
        for optimizer in optimizers:
            optimizer.register_step_post_hook(lambda *_: self.zero_pruned())

    @property
    def mask(self) -> Mask:
        """The mask."""
        return self._mask

    def use(self, mask: Mask) -> None:
        """Takes another mask; what it has pruned becomes zero.

        Args:
            mask: as for the class.

        Raises:
            ValueError: as of the class; nothing was changed then.
        """
        if all(entry is None for entry in mask):
            raise ValueError("model has nothing to prune: a linear, convolution or embedding layer is needed")
        pairs = [
            (weight, entry_as_tensor(entry, weight)) for _, weight, entry in masked_weights(self._net, mask)
        ]
        self._mask = mask
        self._prunable = [weight for weight, _ in pairs]
        self._factors = [factor for _, factor in pairs]
        self.zero_pruned()

    def zero_pruned(self) -> None:
        """Sets pruned weights to zero."""
        with torch.no_grad():
            torch._foreach_mul_(self._prunable, self._factors)

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
        by_layer = {name: living_rate([entry]) for name, _, entry in masked_weights(self._net, self._mask)}
        return {"": living_rate(self._mask), **by_layer}

    def counts(self) -> tuple[list[int], list[int]]:
        """Weights and living weights of each layer; one whose weight two layers share is there once."""
        layers = {weight.data_ptr(): entry for _, weight, entry in masked_weights(self._net, self._mask)}
        return (
            [entry.size for entry in layers.values()],
            [int(entry.astype(bool).sum()) for entry in layers.values()],
        )

    def entries(self) -> dict[str, torch.Tensor]:
        """The mask by the names of the weights, as tensors."""
        return {name: torch.tensor(entry) for name, _, entry in masked_weights(self._net, self._mask)}

    def living(self, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Of each parameter which elements the mask keeps, boolean."""
        factors = {w.data_ptr(): factor for w, factor in zip(self._prunable, self._factors, strict=True)}
        return [factors.get(p.data_ptr(), torch.ones_like(p)) != 0 for p in parameters]
