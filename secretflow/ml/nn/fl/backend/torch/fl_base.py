"""The torch model of a party: upstream's, and which of its weights can be pruned."""

from __future__ import annotations

import torch
from torch import nn

from secretflow._overlay import upstream
from secretflow.ml.nn.fl.pruning import Mask, full_mask

PRUNABLE_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag)


def prunable_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of linear, convolution and embedding layers by their name in the ``state_dict``.

    A weight that two layers share is there under both names.
    """
    return {
        f"{name}.weight" if name else "weight": layer.weight
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, PRUNABLE_LAYERS)
    }


class BaseTorchModel(upstream(__name__).BaseTorchModel):  # type: ignore[misc]
    """Upstream's party-side model, with masks."""

    def make_prune_mask(self) -> Mask:
        """A mask of this model under which every weight lives, see :mod:`~secretflow.ml.nn.fl.pruning`."""
        prunable = prunable_weights(self.model)
        return full_mask(
            prunable[name].detach().numpy(force=True) if name in prunable else None
            for name, value in self.model.state_dict().items()
            if value.dim() >= 2
        )
