"""Which masks a driver has had the parties agree on last."""

from __future__ import annotations

from collections.abc import Sequence

from secretflow.device import PYUObject

from .participant import MaskUse


class Agreements:
    """Tells whether masks were agreed on before, without looking at a value.

    Objects on devices never change, so the same objects are the same masks, and every party's driver comes to
    the same decision.
    """

    def __init__(self) -> None:
        self._last: tuple[list[PYUObject], MaskUse] | None = None
        self._number = 0

    def forget(self) -> None:
        """What was agreed on is no more, as other clients take part."""
        self._last = None

    def begin(self, masks: Sequence[PYUObject], same: bool) -> tuple[MaskUse, int]:
        """What a request does with masks, and the number of the agreement that it makes or rests on.

        Args:
            masks: of the parties.
            same: whether all parties hold the same one.
        """
        use = MaskUse.SHARED if same else MaskUse.AGREE
        if self._last is not None:
            known, last = self._last
            if last is use and all(new is old for new, old in zip(masks, known, strict=True)):
                return MaskUse.LAST, self._number
        self._last = None
        self._number += 1
        return use, self._number

    def end(self, masks: Sequence[PYUObject], use: MaskUse) -> None:
        """A request with masks is on its way.

        Args:
            masks: of the parties.
            use: what it does with them.
        """
        if use is not MaskUse.LAST:
            self._last = list(masks), use
