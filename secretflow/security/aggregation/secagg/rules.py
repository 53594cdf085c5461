"""The rules of one aggregation, which all its parties share."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from secretflow import _validate

from .neighbours import EVERYBODY_UP_TO, degree_for
from .ring import Ring
from .rounding import check_upload_bits

MOST_PARTIES = 1000
"""So many aggregation weights add up in 64 bits, and their parts of one still count in a ring of 32."""

_USUAL_CONTRIBUTORS = 3  # with two, each reads the other's number off the average
_USUAL_COLLUDERS = 2 / 3
_ROUNDED_OFF = 1e-9  # two thirds of 33 are 22


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
        neighbours: with how many others a party shares pads; None with all.
        dropped: how many parties may be gone from a call, for the neighbours to be enough.
        upload_bits: bits of an update in training, see :class:`~.rounding.Rounding`; None for whole numbers.
    """

    ring: Ring
    min_contributors: int
    min_share: float = 0.01
    fixed_contributors: bool = True
    server_blind: bool = False
    neighbours: int | None = None
    dropped: int = 0
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
        max_colluders: float | None = None,
        dropped: int = 0,
        upload_bits: int | None = None,
    ) -> Rules:
        """Validates what a user gives.

        Args:
            ring: see the attributes, as well as the others.
            parties: how many there are.
            min_contributors: None stands for three, or two where there are only two parties.
            max_colluders: part of the parties that may work together with the server, in [0, 1]; never more
                than all but two. None is 1 for up to 32 parties and two thirds for more.
            dropped: see the attributes.

        Raises:
            ValueError: a number is out of its range.
        """
        if min_contributors is None:
            min_contributors = min(_USUAL_CONTRIBUTORS, parties)
        _validate.integer("min_contributors", min_contributors, 1, parties)
        _validate.number("min_share", min_share, above=0, at_most=1)
        _validate.number("max_colluders", max_colluders, at_least=0, at_most=1, optional=True)
        check_upload_bits(upload_bits)
        if max_colluders is None:
            max_colluders = 1.0 if parties <= EVERYBODY_UP_TO else _USUAL_COLLUDERS
        colluders = min(floor(max_colluders * parties + _ROUNDED_OFF), parties - 2)
        # Parties compare how these are written.
        plain = _validate.plain
        degree = degree_for(parties, colluders, dropped)
        return cls(
            ring,
            plain(min_contributors),
            float(min_share),
            plain(fixed_contributors),
            plain(server_blind),
            neighbours=None if degree == parties - 1 else degree,
            dropped=dropped,
            upload_bits=plain(upload_bits),
        )
