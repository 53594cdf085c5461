"""A party that agrees with the others on which elements travel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .ballot import Ballot
from .caller import Caller
from .contributions import Contributions
from .errors import AggregationError
from .identity import Identities
from .inputs import ArrayMasks, align_mask, as_arrays
from .layout import Layout
from .message import Message
from .opening import check_sum
from .rules import Rules
from .stages import Proposed
from .support import Support
from .usage import timed


class Agreeing(Caller):
    """One party's side of agreements about masks.

    For arguments and other attributes see :class:`~.caller.Caller`.

    Attributes:
        contributions: to what this party has contributed.
    """

    _all_stay = True  # whether who has contributed to an element is there when masks are agreed on again

    def __init__(
        self,
        party: str,
        names: Sequence[str],
        rules: Rules,
        identities: Identities | None = None,
    ) -> None:
        super().__init__(party, names, rules, identities)
        self.contributions = Contributions(rules.fixed_contributors)

    @timed
    def propose(self, call: int, data: Any, mask: ArrayMasks, within: Support | None = None) -> Message:
        """Uploads the own mask, padded: a few bits for each element that can stop travelling, or begin to.

        Args:
            call: number of the call.
            data: own arrays.
            mask: own mask, see :func:`~.inputs.align_mask`.
            within: what travels so far, of which no party's mask has got a new element: only its elements are
                agreed on. None, or one of data of other shapes, agrees on all.

        Raises:
            AggregationError: the mask is not allowed, or has an element that it had not in ``within``.
        """
        self._pending = None
        arrays, is_list = as_arrays(data)
        living = align_mask(mask, arrays)
        layout = Layout.dense(arrays, is_list)
        if within is not None and not within.layout.fits(arrays, is_list):
            within = None
        if within is not None:
            if not within.encloses(living):
                raise AggregationError(f"the mask of {self.party} has elements that its last one had not")
            layout = within.layout
        contributes, leaves = self.contributions.split(layout, living)
        # An element keeps all its contributors or stops travelling, so all that is new is who leaves.
        among = within if self.rules.fixed_contributors and self._all_stay else None
        ballot = Ballot(self.parties, counting=among is None, leaving=self.rules.fixed_contributors)
        if among is not None:
            leaves = [
                None if now is None else (np.ones(now.size, bool) if old is None else old) & ~now
                for now, old in zip(contributes, among.contributes, strict=True)
            ]
        body = ballot.cast(layout.travelling(contributes), layout.travelling(leaves))
        which = "".join("." if mask is None else "m" for mask in living)
        pads = self.keys.pads(call, self.transcript.digest)
        checksum = self.keys.checksum(body)
        pads.add_to(body)
        pads.add_to(checksum)
        self.usage.count_agreement(body.nbytes)
        self._pending = Proposed(call, layout, living, contributes, ballot, among)
        return self._message(call, layout, f"mask {which}", [body, checksum])

    @timed
    def settle(self, total: Message, uncounted: int = 0) -> Support:
        """Reads from the sum of the masks which elements travel.

        Args:
            total: the sum of the proposals.
            uncounted: how many parties do not count by their weight. Which is not known, so an element needs
                one contributor more for each.

        Raises:
            AggregationError: no mask was proposed, or the sum is one of other masks.
            DisagreementError: the sum was changed on its way, or the parties were not told the same before.
        """
        proposed, counts = self._read_counts(total)
        at_least = self.rules.min_contributors + uncounted
        layout = proposed.layout.narrowed(counts, self.parties, at_least)
        support = Support(layout, proposed.living, proposed.contributes, uncounted)
        support.counts = [None if count is None else count[count >= at_least] for count in counts]
        if proposed.among is not None:
            support.inherit_denominators(
                proposed.among, [None if c is None else c >= at_least for c in counts]
            )
        return support

    @timed
    def shared_support(self, data: Any, mask: ArrayMasks) -> Support:
        """What travels if the own mask is everybody's.

        If another party's mask is another one, their uploads do not add up, and the server says so.

        Args:
            data: own arrays.
            mask: own mask, see :func:`~.inputs.align_mask`.
        """
        arrays, is_list = as_arrays(data)
        living = align_mask(mask, arrays)
        counts = [None if entry is None else np.where(entry, self.parties, 0) for entry in living]
        layout = Layout.dense(arrays, is_list).narrowed(counts, self.parties, self.rules.min_contributors)
        return Support(layout, living, uncounted=self.parties, shared=True)

    def _read_counts(self, total: Message) -> tuple[Proposed, list[np.ndarray | None]]:
        """The last proposal, and for each array how many parties keep each element of its layout."""
        if not isinstance(self._pending, Proposed):
            raise AggregationError(f"a mask must be proposed first, but {self.party} {self.stage.value}")
        proposed = self._pending
        if (total["call"], total["layout"]) != (
            proposed.call,
            self.keys.name_of(proposed.layout, proposed.call),
        ):
            raise AggregationError("the contributor counts are those of another proposal")
        self._pending = None
        opened = self.keys.unblinded(total)
        check_sum(opened, int(self.keys.checksum(opened["body"][0])[0]))
        self.transcript.add(total)
        return proposed, proposed.counts(opened["body"][0])

    def _message(self, call: int, layout: Layout, encoding: str, body: list[np.ndarray]) -> Message:
        # Of parties that do not share their keys the pads would not cancel, and the sum would be noise.
        encoding = f"{encoding} session={self.keys.session}"
        return Message(call=call, layout=self.keys.name_of(layout, call), encoding=encoding, body=body)
