"""Gradient capture: which gradients of a training one party writes to its own disk, and where.

Off unless asked for. What is written, and how it is read, is in
:mod:`~secretflow.ml.nn.fl.worker.capture_files`.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from secretflow import _validate


@dataclass(frozen=True)
class CaptureRounds:
    """Rounds chosen by what happens in them; those of all choices together are captured.

    Attributes:
        numbers: these rounds, counted from 0 since the model was made.
        first: the first round.
        last: the last round of each ``fit``.
        after_mask_change: each first round under a new mask.

    Raises:
        TypeError: a number is not a whole number.
        ValueError: a number is negative or there twice, or nothing is chosen.
    """

    numbers: tuple[int, ...] = ()
    first: bool = False
    last: bool = False
    after_mask_change: bool = False

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        numbers = self.numbers
        whole = isinstance(numbers, tuple) and all(type(number) is int for number in numbers)
        _validate.check(whole, "rounds", numbers, "a tuple of integers", TypeError)
        different = min(numbers, default=0) >= 0 and len(set(numbers)) == len(numbers)
        _validate.check(different, "rounds", numbers, "different integers of at least 0")
        for name in ("first", "last", "after_mask_change"):
            _validate.flag(name, getattr(self, name))
        chosen = bool(numbers) or self.first or self.last or self.after_mask_change
        _validate.check(chosen, "rounds", numbers, "at least one round")

    def include(self, number: int, *, is_last: bool, mask_changed: bool) -> bool:
        """Whether a round is captured.

        Args:
            number: of the round, from 0.
            is_last: whether it is the last round of ``fit``.
            mask_changed: whether its mask is another than that of the round before.
        """
        return (
            number in self.numbers
            or (self.first and number == 0)
            or (self.last and is_last)
            or (self.after_mask_change and mask_changed)
        )

    def is_single(self) -> bool:
        """Whether one round at most can be captured, however often ``fit`` is called."""
        return len(self.numbers) + self.first == 1 and not (self.last or self.after_mask_change)


@dataclass(frozen=True)
class GradientCapture:
    """Which gradients a party shall write, and where.

    Attributes:
        directory: folder on the party's own disk; a relative one starts at the working directory of the
            party's process. It must not hold a capture of a round that is still to come.
        party: name of the party that writes; the others write nothing.
        rounds: which aggregation rounds to capture, of each the first batch: numbers, or what they are chosen
            by. A single round, chosen by its number or as the first, is written into ``directory`` itself,
            otherwise each into its own sub-directory ``round-<n>``.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a value is empty, negative or there twice.
    """

    directory: str | PathLike[str]
    party: str
    rounds: tuple[int, ...] | CaptureRounds = (0,)

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        if isinstance(self.directory, PathLike):
            object.__setattr__(self, "directory", fspath(self.directory))
        for name in ("directory", "party"):
            value = getattr(self, name)
            _validate.instance(name, value, str, "a string")
            _validate.check(bool(value), name, value, "a string that is not empty")
        self._chosen()

    def _chosen(self) -> CaptureRounds:
        return self.rounds if isinstance(self.rounds, CaptureRounds) else CaptureRounds(self.rounds)

    def folder(
        self, party: str, round_number: int, *, is_last: bool = False, mask_changed: bool = False
    ) -> str | None:
        """The folder to write this party's gradient of this round to; None if it is not to be written.

        Args:
            party: who asks.
            round_number: of the round, from 0.
            is_last: see :meth:`CaptureRounds.include`.
            mask_changed: see :meth:`CaptureRounds.include`.
        """
        chosen = self._chosen()
        if party != self.party or not chosen.include(
            round_number, is_last=is_last, mask_changed=mask_changed
        ):
            return None
        return str(self._folder(round_number))

    def check_free(self, round_number: int) -> None:
        """Looks whether captures of the rounds to come have a place.

        Args:
            round_number: of the next round, from 0.

        Raises:
            FileExistsError: the folder holds a capture of that round or a later one, or other files where
                the only capture goes.
        """
        chosen, folder = self._chosen(), Path(self.directory)
        if chosen.is_single():
            is_to_come = round_number <= max(chosen.numbers, default=0)
            taken = [folder] if is_to_come and folder.exists() and list(folder.iterdir()) else []
        else:
            numbers = {path: path.name.removeprefix("round-") for path in folder.glob("round-*")}
            taken = [path for path, n in numbers.items() if n.isdecimal() and int(n) >= round_number]
        if taken:
            raise FileExistsError(
                f"directory must be a folder without a capture of a round to come, since captures are never "
                f"mixed or overwritten, got {self.directory!r}, where {min(taken)} is there already"
            )

    def _folder(self, round_number: int) -> Path:
        folder = Path(self.directory)
        return folder if self._chosen().is_single() else folder / f"round-{round_number}"
