"""What a party and the server tell each other in a call that ends with those who are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..message import Message


@dataclass(frozen=True)
class Hello:
    """To the server: a party is there. It has no call yet, so its number is 0.

    Attributes:
        call: 0.
        passed: how far the party has come in what the calls are for; 0 if it has not begun.
        held: as ``passed``, of the last average that it has taken up; 0 for none.
    """

    call: int = 0
    passed: int = 0
    held: int = 0


@dataclass(frozen=True)
class Bye:
    """To the server: a party has all it wants."""

    call: int = 0


@dataclass(frozen=True)
class Members:
    """To each party: who begins.

    Attributes:
        names: in the order in which weights are given.
        call: 0.
        behind: who of them has not got the last average.
        passed: how far the one that is furthest has come.
    """

    names: tuple[str, ...]
    call: int = 0
    behind: tuple[str, ...] = ()
    passed: int = 0


@dataclass(frozen=True)
class Regroup:
    """To each party: somebody comes, or was lost while keys were agreed on; say hello again."""

    call: int = 0


@dataclass(frozen=True)
class Letters:
    """From each member to the others, through the server, before the first call.

    Attributes:
        call: 0.
        letters: to the server by receiver, from the server by sender.
    """

    letters: Mapping[str, bytes] = field(repr=False)
    call: int = 0


@dataclass(frozen=True, eq=False)
class _Numbers:
    message: Message

    @property
    def call(self) -> int:
        """Number of the call."""
        return self.message["call"]


class Upload(_Numbers):
    """To the server: padded numbers."""


@dataclass(frozen=True)
class Announcement:
    """To each survivor: whose numbers have come in time.

    Attributes:
        call: number of the call.
        survivors: names, in the order of the roster.
    """

    call: int
    survivors: tuple[str, ...]


@dataclass(frozen=True)
class Codes:
    """From each survivor to all the others, through the server: it goes on with this set.

    Attributes:
        call: number of the call.
        codes: 32 bytes each; to the server by receiver, from the server by sender.
    """

    call: int
    codes: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Declined:
    """To the server: the numbers cannot be opened with this set, but could be uploaded anew for it."""

    call: int


@dataclass(frozen=True)
class Again:
    """To each survivor: the call is given up, nothing of it is opened; the next one is of these.

    Attributes:
        call: number of the call that is given up.
        roster: names, fewer than before.
    """

    call: int
    roster: tuple[str, ...]


@dataclass(frozen=True)
class Release:
    """To the server: what takes the pads off.

    Attributes:
        call: number of the call.
        seed: of the own pad, 32 bytes; sealed for the parties if the server is blind and this is the first
            survivor.
        sealed: whether it is.
        keys: for each party that has dropped out the key of the pad shared with it, in this call.
    """

    call: int
    seed: bytes = field(repr=False)
    sealed: bool
    keys: Mapping[str, bytes] = field(repr=False)


class PaddedHalf(_Numbers):
    """To each survivor: half of the sum of their numbers, with all pads on it; one half after the other."""


@dataclass(frozen=True, eq=False)
class PadKeys:
    """To each survivor, in place of :class:`Total`: what takes the pads off the sum that it has.

    Attributes:
        call: number of the call.
        keys: 32 bytes each, with whether the pad is subtracted to take it off.
        sealed: see :class:`Total`, as well as ``comers``.
    """

    call: int
    keys: Sequence[tuple[bytes, bool]] = field(repr=False)
    sealed: bytes = field(repr=False, default=b"")
    comers: bool = False


@dataclass(frozen=True, eq=False)
class Total(_Numbers):
    """To each survivor: the sum of their numbers.

    Attributes:
        message: the sum.
        sealed: the seed of the pad that is left on it if the server is blind, else empty.
        comers: whether somebody waits to come in, for whom all say hello again.
    """

    sealed: bytes = field(repr=False, default=b"")
    comers: bool = False


@dataclass(frozen=True, eq=False)
class Report:
    """To the server, for all who are there: what is no secret among them.

    Attributes:
        call: number of the call.
        body: sealed if the server is blind.
    """

    call: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class Reports:
    """To each who has reported: what all those have.

    Attributes:
        call: number of the call.
        bodies: by sender, in the order of the roster. Those are who takes part in the next call.
    """

    call: int
    bodies: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Lost:
    """To each party that is left: somebody was lost after the agreement, and the call has no result.

    Attributes:
        call: number of the call.
        roster: of the next call, fewer than before.
    """

    call: int
    roster: tuple[str, ...]


@dataclass(frozen=True)
class Dropped:
    """To a party whose message came too late: the others have gone on."""

    call: int


@dataclass(frozen=True)
class Ended:
    """To everybody who is left: there will be no further call.

    Attributes:
        call: number of the call that has no result.
        reason: what to tell the user.
        too_few: whether it is that too few parties are left.
    """

    call: int
    reason: str
    too_few: bool


ToServer: TypeAlias = "Hello | Letters | Upload | Codes | Declined | Release | Report | Bye"
ToParty: TypeAlias = (
    "Members | Regroup | Letters | Announcement | PaddedHalf | Codes | Again | PadKeys | Total | Reports "
    "| Lost | Dropped | Ended"
)
