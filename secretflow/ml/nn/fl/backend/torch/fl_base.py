"""The torch model of a party: upstream's, with masks."""

from __future__ import annotations

from secretflow._overlay import upstream
from secretflow.ml.nn.fl.backend.torch.list_masks import ListMask, as_list
from secretflow.ml.nn.fl.backend.torch.masked_model import full_mask_of, tensors_of


class BaseTorchModel(upstream(__name__).BaseTorchModel):  # type: ignore[misc]
    """Upstream's party-side model, with masks."""

    def make_prune_mask(self) -> ListMask:
        """A mask under which every weight lives, see :mod:`~secretflow.ml.nn.fl.backend.torch.list_masks`."""
        return as_list(tensors_of(self.model), full_mask_of(self.model))
