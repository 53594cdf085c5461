"""What an aggregator tells of its rules and of what was uploaded."""

from __future__ import annotations

from collections.abc import Mapping

from secretflow.device import PYU, PYUObject

from .group import Group


class Measured:
    """A base of an aggregator: its rules, and measurements, each at its party."""

    _group: Group

    @property
    def server_blind(self) -> bool:
        """Whether the server learns nothing but sizes."""
        return self._group.rules.server_blind

    @property
    def upload_bits(self) -> int | None:
        """Bits that an update is rounded to in training; None if it is not."""
        return self._group.rules.upload_bits

    def payload_bytes(self) -> dict[PYU, PYUObject]:
        """Bytes that each party has uploaded since its client was made: ring elements and masks.

        What is not counted is in :class:`~secretflow.security.aggregation.secagg.usage.Usage`.
        """
        return {party: member.payload_bytes() for party, member in self._group.members.items()}

    def round_bytes(self, before: Mapping[PYU, int] | None = None) -> dict[PYU, PYUObject]:
        """Bytes of each round: for each party a list of ints, one for each sum or average.

        What an agreement about masks takes is counted in the round that it was made for.

        Args:
            before: how many rounds of each party to leave out; None tells of all.
        """
        return {
            party: member.round_bytes(0 if before is None else before[party])
            for party, member in self._group.members.items()
        }
