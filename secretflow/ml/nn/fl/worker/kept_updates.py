"""What a party keeps from one fit to the next where its updates travel instead of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from secretflow.security.aggregation.secagg.dropouts.last_average import LastAverage
from secretflow.security.aggregation.secagg.updates import Updates


class UpdatesState(TypedDict):
    """What a checkpoint holds.

    Attributes:
        references: by the name of an array the last average of it.
        rests: by the name of an array what was rounded off, which is in the next update.
    """

    references: dict[str, np.ndarray]
    rests: dict[str, np.ndarray]


NOTHING_KEPT = UpdatesState(references={}, rests={})


class KeptUpdates:
    """The updates of a party by the names of its arrays; nothing where no fit has had any."""

    def __init__(self) -> None:
        self._updates: Updates | None = None
        self._names: Sequence[str] = ()
        self._kept = NOTHING_KEPT

    def begin(self, names: Sequence[str], arrays: Sequence[np.ndarray], updated: Sequence[str]) -> Updates:
        """Goes on with what was kept, in a fit.

        Args:
            names: of the arrays.
            arrays: of the model.
            updated: the names of those whose updates travel.
        """
        kept, numbers = self.state(), {name: k for k, name in enumerate(names)}
        self._updates = Updates(arrays, [numbers[name] for name in updated])
        self._names = list(names)
        self._updates.go_on(
            {numbers[name]: array for name, array in kept["references"].items() if name in numbers},
            {numbers[name]: array for name, array in kept["rests"].items() if name in numbers},
        )
        return self._updates

    def completed(self, opened: LastAverage, upload_bits: int | None) -> LastAverage:
        """The last average with what its updates are of, instead of updates.

        Args:
            opened: what the last average has opened.
            upload_bits: of an update; None if none are rounded.
        """
        if upload_bits is None or self._updates is None:
            return opened
        references = self._updates.references
        return opened._replace(arrays=[references.get(k, own) for k, own in enumerate(opened.arrays)])

    def state(self) -> UpdatesState:
        """What is kept, in arrays that change with the next round."""
        if self._updates is None:
            return self._kept
        return UpdatesState(
            references={self._names[k]: array for k, array in self._updates.references.items()},
            rests={self._names[k]: array for k, array in self._updates.rests.items()},
        )

    def load(self, kept: UpdatesState) -> None:
        """Takes what :meth:`state` of another run has given; a running fit is not continued."""
        self._updates, self._kept = None, kept

    def take_clipped(self) -> float | None:
        """What part of the updates was clipped since this was asked last; None if none are rounded."""
        return None if self._updates is None else self._updates.take_clipped()
