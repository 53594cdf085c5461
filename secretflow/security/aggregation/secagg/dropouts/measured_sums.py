"""Sums of what parties measure, where the parties who are there change.

What a party measures may stay the same from one epoch to the next, as its labels of a class do. So two such
sums that differ by a party, unlike two of weights that train, would differ by exactly its numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import AggregationError, RoundLostError
from ..identity import Identities
from ..message import Message
from ..rules import Rules
from .client import SurvivingClient
from .opened_sums import OpenedSums
from .rules import SurvivorRules
from .wire import Release

_FEWEST = 3  # of two parties each learns the other's number from the sum


class MeasuredSums:
    """Of whom sums of measurements were opened, and of whom further ones may be.

    With ``fixed_contributors`` whatever can be worked out from all of the sums together is about at least
    ``fewest`` parties: parties who were in the same sums have equal factors in it, and there are at least so
    many of them. Without it each sum by itself is. A sum of all who take part counts as opened in any case,
    as a fit opens it that needs all parties.

    Args:
        rules: of the aggregation.
        everybody: the names of all who take part when nobody is lost.
        folder: where the party keeps of whom it has helped to open sums, also before now; None for nowhere.

    Raises:
        AggregationError: what is kept there cannot be read.

    Attributes:
        fewest: three parties, or ``min_contributors`` if those are more; of two parties two.
        opened: the names of the parties of each sum that may have been opened.
    """

    def __init__(self, rules: Rules, everybody: Sequence[str], folder: Path | None = None) -> None:
        self.fewest = max(rules.min_contributors, min(_FEWEST, len(everybody)))
        self._everybody = set(everybody)
        self._kept = OpenedSums(folder)
        self.opened = self._kept.read()
        self._fixed = rules.fixed_contributors

    def allow(self, parties: Iterable[str]) -> bool:
        """Whether a sum of these parties may be opened, other processes of this party taken into account."""
        self.opened |= self._kept.read()
        before = [self._everybody, *map(set, self.opened)] if self._fixed else []
        sets = [set(parties), *before]
        alike = Counter(tuple(name in one for one in sets) for name in set().union(*sets))
        return min(alike.values(), default=0) >= self.fewest

    def add(self, opened: Iterable[Iterable[str]]) -> None:
        """Takes down of whom sums may have been opened, as another party says."""
        self.opened |= {tuple(sorted(parties)) for parties in opened}

    def open(self, parties: Iterable[str]) -> None:
        """Takes down of whom this party helps to open a sum, and keeps it before anything is opened.

        Raises:
            OSError: it cannot be kept.
            AggregationError: since :meth:`allow` another process of this party has helped to open one with
                which this one would tell of few parties.
        """
        names = tuple(sorted(parties))
        with self._kept.held():
            if not self.allow(names):
                raise AggregationError(
                    f"a sum of {', '.join(names)} must tell of {self.fewest} parties with all others, "
                    "got another that a process of this party has helped to open meanwhile"
                )
            self._kept.add([names])
        self.opened.add(names)


class MeasuringClient(SurvivingClient):
    """A client that adds measurements up: those of all of a roster, or nothing is opened.

    For arguments see :class:`~.client.SurvivingClient`.

    Args:
        everybody: the names of all who take part when nobody is lost; None for ``names``.
        folder: see :class:`MeasuredSums`.

    Attributes:
        measured: of whom such sums were opened.
    """

    def __init__(
        self,
        party: str,
        names: Sequence[str],
        rules: Rules,
        survivor_rules: SurvivorRules,
        identities: Identities | None = None,
        everybody: Sequence[str] | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(party, names, rules, survivor_rules, identities)
        self.measured = MeasuredSums(rules, everybody or names, folder)
        self._measures = False

    @contextmanager
    def measures(self) -> Iterator[None]:
        """Has calls be of all of the roster.

        If a party is lost in one, it raises :class:`~..errors.RoundLostError`, and the numbers are not
        uploaded for fewer parties: a seed that is missing may still arrive.
        """
        self._measures = True
        try:
            yield
        finally:
            self._measures = False

    def release(self, call: int, codes: Mapping[str, bytes]) -> Release:
        """Gives out what takes the own pads off, see :meth:`~.client.SurvivingClient.release`."""
        if self._measures:
            self.measured.open(self.roster)
        return super().release(call, codes)

    def repeat(self, roster: tuple[str, ...]) -> Message:
        """Uploads for fewer parties, see :meth:`~.client.SurvivingClient.repeat`.

        Raises:
            RoundLostError: what was uploaded are measurements.
        """
        if not self._measures:
            return super().repeat(roster)
        self.lose(roster)
        raise RoundLostError("a party was lost while measurements were added up")

    def remember(self, before: SurvivingClient, fresh: bool) -> None:
        """Takes over what may not be forgotten, see :meth:`~.client.SurvivingClient.remember`."""
        super().remember(before, fresh)
        if isinstance(before, MeasuringClient):
            self.measured = before.measured

    def _can_open(self, survivors: Sequence[str]) -> bool:
        if self._measures and len(survivors) < len(self.roster):
            return False
        return super()._can_open(survivors)
