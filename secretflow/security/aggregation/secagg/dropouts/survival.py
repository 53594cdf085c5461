"""What a fit is told of calls that end with those who are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secretflow import _validate

from ..errors import AggregationError
from ..group import Group
from ..identity import Identities
from ..rules import Rules
from ..transport.network.tls import Tls
from .measured_sums import MeasuringClient
from .rules import SurvivorRules

ROUND_DEADLINE = 60.0
"""Seconds, unless the user says otherwise."""


@dataclass(frozen=True)
class Survival:
    """Who takes part, and how many of them must be left.

    Attributes:
        server: name of who adds up.
        names: of the parties, in the order in which weights are given.
        rules: of the aggregation.
        survivors: which sets of parties a call may end with.
        round_deadline: seconds that a party may take for a step of a round, its training included.
        identities: who the parties are; None if they are not pinned.
    """

    server: str
    names: tuple[str, ...]
    rules: Rules
    survivors: SurvivorRules
    round_deadline: float
    identities: Identities | None

    @classmethod
    def make(cls, group: Group, min_survivors: int | None, round_deadline: float) -> Survival | None:
        """Validates what a user gives.

        Args:
            group: who takes part.
            min_survivors: see :class:`.SurvivorRules`; None if all must be there.
            round_deadline: see the attributes.

        Raises:
            ValueError: a number is out of its range.
        """
        _validate.number("round_deadline", round_deadline, above=0)
        if min_survivors is None:
            return None
        names, rules = tuple(party.party for party in group.parties), group.rules
        survivors = SurvivorRules.make(len(names), min_survivors, rules.min_contributors)
        return cls(group.device.party, names, rules, survivors, float(round_deadline), group.identities)

    @property
    def server_is_told(self) -> bool:
        """Whether the server is another than the parties, and may know what they have in common."""
        return not self.rules.server_blind and self.server not in self.names

    def client(self, party: str, names: Sequence[str], folder: Path | None = None) -> MeasuringClient:
        """The client of a party.

        Args:
            party: its name.
            names: of those it makes calls with, as the server says.
            folder: where it keeps what must outlast its process; None for nowhere.

        Raises:
            AggregationError: one is none of the parties that take part, or what is kept cannot be read.
        """
        strangers = sorted(set(names) - set(self.names))
        if strangers:
            raise AggregationError(f"members must be of {', '.join(self.names)}, got {', '.join(strangers)}")
        return MeasuringClient(party, names, self.rules, self.survivors, self.identities, self.names, folder)


@dataclass(frozen=True)
class Streams:
    """Where the parties' streams to the server run.

    Attributes:
        own: name of this party.
        address: where parties reach the server, host and port.
        listen: where the server listens.
        server: its name, which its certificate has.
        tls: this party's files; None on loopback only.
        wait: seconds that parties, and a server that is started again, are waited for.
        folder: where the party keeps what must outlast its process; None in a simulation, whose one driver is
            told everything.
    """

    own: str
    address: str
    listen: str
    server: str
    tls: Tls | None
    wait: float
    folder: Path | None = None


_here: Streams | None = None


def set_streams(streams: Streams | None) -> None:
    """Says where the streams of this process's cluster run; None forgets it."""
    global _here
    _here = streams


def streams_here() -> Streams | None:
    """What :func:`set_streams` was given last."""
    return _here
