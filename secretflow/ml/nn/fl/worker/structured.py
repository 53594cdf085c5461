"""A party's model from which whole units are removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn, optim

from secretflow.ml.nn.fl.backend.torch.masked_model import full_mask_of, prune_model
from secretflow.ml.nn.fl.backend.torch.shared_memory import View
from secretflow.ml.nn.fl.backend.torch.units import guard_rows, unit_groups
from secretflow.ml.nn.fl.pruning import (
    Mask,
    PruneSettings,
    Structure,
    carried_mask,
    check_whole_units,
    density,
    living_units,
)
from secretflow.ml.nn.fl.worker.masked import MaskedModel


class StructuredModel(MaskedModel):
    """A model under a mask of whole units; biases and normalisation entries of removed ones are zero as well.

    Args:
        net: as for :class:`MaskedModel`.
        optimizers: as there.
        mask: of the model's weights.
        structure: the units that may be removed.

    Raises:
        ValueError: as of :class:`MaskedModel`, or the mask prunes single weights.
    """

    def __init__(
        self, net: nn.Module, optimizers: Iterable[optim.Optimizer], mask: Mask, structure: Structure
    ) -> None:
        self._structure = structure
        super().__init__(net, optimizers, mask)

    def use(self, mask: Mask) -> None:
        """Takes another mask of whole units, see :meth:`MaskedModel.use`."""
        check_whole_units(self._structure, mask)
        super().use(mask)

    def prune_if_due(self, settings: PruneSettings, epoch: float) -> bool:
        """Takes a step of pruning where one is due by the number of living units."""
        if not settings.step_due(epoch, density(self._units())):
            return False
        self.use(prune_model(self._net, self._mask, settings, epoch, self._views, self._structure))
        return True

    def densities(self) -> dict[str, float]:
        """Densities by layer, see :meth:`MaskedModel.densities`, and of units under the name "units"."""
        return {**super().densities(), "units": density(self._units())}

    def counts(self) -> tuple[list[int], list[int]]:
        """Units and living units of each group: what the plan is made from."""
        units = self._units().values()
        return [living.size for living in units], [int(living.sum()) for living in units]

    def _entries_of(self, mask: Mask, views: Mapping[str, View]) -> Mask:
        carried = carried_mask(self._structure, living_units(self._structure, mask))
        return {**super()._entries_of(mask, views), **carried}

    def _units(self) -> Mask:
        """Which units of each group live."""
        living = living_units(self._structure, self._mask)
        return {group.name: units for group, units in zip(self._structure, living, strict=True)}


def masked_model(
    net: nn.Module, optimizers: Iterable[optim.Optimizer], settings: PruneSettings
) -> MaskedModel:
    """A model under a mask under which everything lives.

    Args:
        net: the model.
        optimizers: of the model.
        settings: what the user chose about pruning.

    Raises:
        ValueError: the model has nothing to prune.
    """
    mask = full_mask_of(net, settings.prunable)
    if settings.prune_structure is None:
        return MaskedModel(net, optimizers, mask, settings.step_power)
    structure = unit_groups(net, settings.prune_structure, settings.prunable)
    guard_rows(net)
    # Whatever reads a unit that goes is masked, too, chosen or not.
    readers = {axis.name for group in structure for axis in group.read_by}
    if not readers <= mask.keys():
        mask = full_mask_of(net, (*mask, *readers))
    return StructuredModel(net, optimizers, mask, structure)
