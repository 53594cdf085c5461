"""The torch model of a party: upstream's, with masks."""

from __future__ import annotations

from typing import Any

from secretflow import _validate
from secretflow._overlay import upstream
from secretflow.ml.nn.fl.backend.torch.evaluation import Evaluation
from secretflow.ml.nn.fl.backend.torch.list_masks import ListMask, full_list_mask


class BaseTorchModel(Evaluation, upstream(__name__).BaseTorchModel):  # type: ignore[misc]
    """Upstream's party-side model, with masks and with an evaluation that changes nothing."""

    def build_dataset(self, *args: Any, sampler_method: str = "batch", **kwargs: Any) -> None:
        """Takes data as upstream does; refuses what it has no sampler for."""
        _validate.one_of("sampler_method", sampler_method, ("batch",))
        super().build_dataset(*args, sampler_method=sampler_method, **kwargs)

    def make_prune_mask(self) -> ListMask:
        """A mask under which every weight lives, see :mod:`~secretflow.ml.nn.fl.backend.torch.list_masks`."""
        return full_list_mask(self.model)
