"""What a client of the aggregation waits for between two messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np

from .ballot import Ballot
from .layout import Layout
from .opening import Opening
from .support import Support
from .weights import AggregationWeights


class Stage(Enum):
    """What a client waits for."""

    IDLE = "waits for no sum"
    PROPOSED = "waits for the sum of the masks"
    UPLOADED = "waits for the sum of the uploads"
    ADDING = "waits for the sum of integers"


@dataclass(frozen=True, eq=False, repr=False)  # it holds what is the party's own
class Proposed:
    """A mask that was proposed.

    Attributes:
        call: number of the call.
        layout: whose elements are agreed on.
        living: for each array the own flat mask, boolean, or None where everything lives.
        contributes: for each array where the party would add its numbers, boolean, or None where everywhere.
        ballot: what was said of elements.
        among: the last agreement, if all that was said is who leaves.
    """

    call: int
    layout: Layout
    living: Sequence[np.ndarray | None]
    contributes: Sequence[np.ndarray | None]
    ballot: Ballot
    among: Support | None

    def counts(self, total: np.ndarray) -> list[np.ndarray | None]:
        """For each array how many parties contribute to each element of the layout; None where all do.

        Args:
            total: the sum of the ballots.
        """
        pairs = zip(self.layout.sizes, self.living, strict=True)
        size = sum(size for size, mask in pairs if mask is not None)
        rows = self.layout.split_masked(self.ballot.tally(total, size), self.living)
        if self.among is None:
            return rows
        return [
            row if row is None or before is None else np.where(row, before, 0).astype(before.dtype)
            for row, before in zip(rows, self.among.counts, strict=True)
        ]


@dataclass(frozen=True, eq=False, repr=False)  # it holds what is the party's own
class Uploaded:
    """Numbers that were uploaded.

    Attributes:
        opening: how to read their sum.
        weights: everybody's.
        support: which elements travel; None if all do.
    """

    opening: Opening
    weights: AggregationWeights
    support: Support | None


@dataclass(frozen=True)
class Adding:
    """Integers that were uploaded.

    Attributes:
        call: number of the call.
        shape: of the integers.
    """

    call: int
    shape: tuple[int, ...]


Pending: TypeAlias = Proposed | Uploaded | Adding


def stage_of(pending: Pending | None) -> Stage:
    """What a client waits for that has this pending."""
    if pending is None:
        return Stage.IDLE
    return {Proposed: Stage.PROPOSED, Uploaded: Stage.UPLOADED, Adding: Stage.ADDING}[type(pending)]
