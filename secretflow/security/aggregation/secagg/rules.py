"""The rules of one aggregation, which all its parties share."""

from __future__ import annotations

from dataclasses import dataclass

from secretflow import _validate

from .ring import Ring
from .rounding import check_upload_bits

_USUAL_CONTRIBUTORS = 3  # with two, each reads the other's number off the average


@dataclass(frozen=True)
class Rules:
    """What holds in every call. The parties confirm with their keys that they mean the same.

    Attributes:
        ring: how floats are encoded.
        min_contributors: fewest parties that must count at an element for its sum to be opened.
        min_share: a party counts where its aggregation weight is at least this part of an equal one, which is
            the total of all parties divided by their number; in (0, 1].
        fixed_contributors: whether an element travels only with the contributors of its first sum, and data
            only under the weights of their first average.
        server_blind: whether one party adds a pad that only the parties can take off.
        upload_bits: bits of an update in training, see :class:`~.rounding.Rounding`; None for whole numbers.
    """

    ring: Ring
    min_contributors: int
    min_share: float = 0.01
    fixed_contributors: bool = True
    server_blind: bool = False
    upload_bits: int | None = None

    @classmethod
    def make(
        cls,
        ring: Ring,
        parties: int,
        min_contributors: int | None = None,
        min_share: float = 0.01,
        fixed_contributors: bool = True,
        server_blind: bool = False,
        upload_bits: int | None = None,
    ) -> Rules:
        """Validates what a user gives.

        Args:
            ring: see the attributes, as well as the others.
            parties: how many there are.
            min_contributors: None stands for three, or two where there are only two parties.

        Raises:
            ValueError: a number is out of its range.
        """
        if min_contributors is None:
            min_contributors = min(_USUAL_CONTRIBUTORS, parties)
        _validate.integer("min_contributors", min_contributors, 1, parties)
        _validate.number("min_share", min_share, above=0, at_most=1)
        check_upload_bits(upload_bits)
        return cls(ring, min_contributors, float(min_share), fixed_contributors, server_blind, upload_bits)
