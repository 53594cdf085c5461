"""A party that makes calls: its keys, what it was told, and the sums of integers that rules rest on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .errors import AggregationError
from .identity import Identities
from .integers import open_integers, upload_integers
from .keyring import KeyRing
from .message import Message
from .ratchet import CALLS_PER_START
from .rules import Rules
from .stages import Adding, Pending, Stage, stage_of
from .transcript import Transcript
from .usage import Usage
from .weights import AggregationWeights


class Caller:
    """One party's side of calls, and of sums of integers.

    Args:
        party: own name.
        names: the names of all parties, in the order in which weights are given.
        rules: of the aggregation.
        identities: who the parties are; None if they are not pinned.

    Attributes:
        party: own name.
        keys: own keys.
        rules: of the aggregation.
        transcript: what this party was told.
        usage: bytes uploaded and seconds of work.
        parties: how many there are.
        position: which of them this one is, from 0.
    """

    _key_ring: type[KeyRing] = KeyRing

    def __init__(
        self,
        party: str,
        names: Sequence[str],
        rules: Rules,
        identities: Identities | None = None,
    ) -> None:
        self.keys = self._key_ring(party, names, str(rules), identities, rules.server_blind, rules.neighbours)
        self.rules = rules
        self.transcript = Transcript()
        self.usage = Usage()
        self.parties = len(names)
        self.position = names.index(party)
        self.party = party
        self._calls: Iterator[int] = itertools.count(1)
        self._pending: Pending | None = None

    @property
    def stage(self) -> Stage:
        """What this client waits for."""
        return stage_of(self._pending)

    def number_calls(self, start: int) -> None:
        """Numbers the calls of the generators from ``start * CALLS_PER_START`` on.

        All parties must be given the same start, larger than any before. So they are in step after a failure.
        """
        self._calls = itertools.count(start * CALLS_PER_START)

    def present(self) -> int:
        """Of how many parties the last sum is."""
        return self.parties

    def next_call(self) -> int:
        """The number of the next call."""
        return next(self._calls)

    def weights_of(self, weights: Sequence[Any]) -> AggregationWeights:
        """Aggregation weights that everybody knows, see :meth:`AggregationWeights.make`."""
        return AggregationWeights.make(weights, self.position, self.parties, self.rules)

    def upload_integers(self, call: int, own: np.ndarray) -> Message:
        """Pads integers, see :func:`~.integers.upload_integers`."""
        self._pending = Adding(call, own.shape)
        return upload_integers(self.keys, self.transcript, call, own)

    def open_integers(self, total: Message) -> np.ndarray:
        """Reads the sum of the last integers, see :func:`~.integers.open_integers`."""
        if not isinstance(self._pending, Adding):
            raise AggregationError(f"no integers were uploaded to open, and {self.party} {self.stage.value}")
        adding, self._pending = self._pending, None
        return open_integers(self.keys, self.transcript, adding.call, adding.shape, total)
