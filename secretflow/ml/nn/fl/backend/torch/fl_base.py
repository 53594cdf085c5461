"""The torch model of a party: upstream's, with masks."""

from __future__ import annotations

from secretflow._overlay import upstream
from secretflow.ml.nn.fl.backend.torch.masked_model import full_mask_of
from secretflow.ml.nn.fl.pruning import Mask


class BaseTorchModel(upstream(__name__).BaseTorchModel):  # type: ignore[misc]
    """Upstream's party-side model, with masks."""

    def make_prune_mask(self) -> Mask:
        """A mask of this model under which every weight lives, see :mod:`~secretflow.ml.nn.fl.pruning`."""
        return full_mask_of(self.model)
