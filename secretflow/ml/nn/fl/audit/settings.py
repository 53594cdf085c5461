"""What an audit is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from secretflow import _validate


@dataclass(frozen=True)
class AuditSettings:
    """Which views are made, on how many rows, and how long attackers may try.

    Attributes:
        batch_size: rows of one party's batch, at least 1.
        parties: how many stand behind an average, each at least 2; () makes no averages.
        density: of the pruned weights, in (0, 1]; 1 prunes nothing. Weights that are pruned already stay so.
        bits: of a rounded coordinate of what is uploaded, at least 2; None rounds nothing.
        local_steps: steps of gradient descent before an upload, at least 1.
        learning_rate: of these steps, above 0.
        rows: that are attacked, at most; at least 2.
        candidates: among which they are sought, at most; at least 2. Attacked rows are among them.
        public: other rows, which the attacker has, at most; at least 10.
        minutes: after which no further attack starts, above 0; half of them is left for searches.
        seed: of everything that is drawn.
        show_rows: whether the report shows rows and what came back of them.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a number is out of its range.
    """

    batch_size: int = 1
    parties: tuple[int, ...] = (8,)
    density: float = 1.0
    bits: int | None = None
    local_steps: int = 1
    learning_rate: float = 0.1
    rows: int = 100
    candidates: int = 10_000
    public: int = 20_000
    minutes: float = 8.0
    seed: int = 0
    show_rows: bool = True

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        least = {"batch_size": 1, "local_steps": 1, "rows": 2, "candidates": 2, "public": 10, "seed": 0}
        for name, number in least.items():
            _validate.integer(name, getattr(self, name), number)
        _validate.instance("parties", self.parties, tuple, "a tuple of integers")
        for number in self.parties:
            _validate.integer("parties", number, 2)
        _validate.number("density", self.density, above=0, at_most=1)
        _validate.integer("bits", self.bits, 2, optional=True)
        _validate.number("learning_rate", self.learning_rate, above=0)
        _validate.number("minutes", self.minutes, above=0)
        _validate.flag("show_rows", self.show_rows)
