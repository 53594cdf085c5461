"""Which sets of parties a call may end with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secretflow import _validate

from ..errors import AggregationError, TooFewSurvivorsError


def may_drop_out(parties: int, min_survivors: int | None) -> int:
    """How many parties may be gone from a call.

    Args:
        parties: how many begin.
        min_survivors: as the user gives it; :meth:`SurvivorRules.make` says whether it is one.
    """
    return parties - min_survivors if isinstance(min_survivors, int) and 0 < min_survivors < parties else 0


@dataclass(frozen=True)
class SurvivorRules:
    """What a set of survivors must be.

    Attributes:
        parties: how many take part when nobody is lost.
        min_survivors: fewest that a call ends with, more than half of ``parties``. So any two sets that a
            call could end with have a party in common, and that party agrees to one of them only.
    """

    parties: int
    min_survivors: int

    @classmethod
    def make(cls, parties: int, min_survivors: int, min_contributors: int) -> SurvivorRules:
        """Validates the numbers a user gives.

        Args:
            parties: see the attributes, as well as ``min_survivors``.
            min_contributors: see :class:`~..rules.Rules`.

        Raises:
            ValueError: ``min_survivors`` is not more than half of the parties, below ``min_contributors``, or
                above ``parties``.
        """
        fewest = max(parties // 2 + 1, min_contributors)
        _validate.integer("min_survivors", min_survivors, fewest, parties)
        return cls(parties, min_survivors)

    def check(self, roster: Sequence[str], survivors: Sequence[str], party: str) -> None:
        """Looks whether a party may go on with a set.

        Args:
            roster: who was expected.
            survivors: who is there, as the server says.
            party: own name.

        Raises:
            AggregationError: the set is not one of the roster's, or the party itself is not in it.
            TooFewSurvivorsError: the set is too small.
        """
        there = set(survivors)
        if tuple(name for name in roster if name in there) != tuple(survivors) or party not in there:
            raise AggregationError(
                f"survivors must be some of {list(roster)}, in that order and with {party}, got "
                f"{list(survivors)}"
            )
        if len(survivors) < self.min_survivors:
            raise TooFewSurvivorsError(self.too_few(roster, survivors))

    def too_few(self, names: Sequence[str], survivors: Sequence[str]) -> str:
        """The message of an error about too few survivors.

        Args:
            names: who has taken part in the beginning.
            survivors: who is left.
        """
        gone = ", ".join(name for name in names if name not in survivors)
        return (
            f"at least {self.min_survivors} parties must be there, got {len(survivors)}; gone: {gone}. Start "
            "them again, or allow fewer with min_survivors"
        )
