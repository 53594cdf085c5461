"""The torch model of a party: upstream's, with masks."""

from __future__ import annotations

from secretflow._overlay import upstream
from secretflow.ml.nn.fl.backend.torch.list_masks import ListMask, full_list_mask


class BaseTorchModel(upstream(__name__).BaseTorchModel):  # type: ignore[misc]
    """Upstream's party-side model, with masks."""

    def make_prune_mask(self) -> ListMask:
        """A mask under which every weight lives, see :mod:`~secretflow.ml.nn.fl.backend.torch.list_masks`."""
        return full_list_mask(self.model)
