"""Which rows are attacked, among which they are sought, and which ones the attacker has."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks import PublicRows
from secretflow.ml.nn.fl.audit.rows import Rows
from secretflow.ml.nn.fl.audit.settings import AuditSettings


@dataclass(frozen=True)
class Split:
    """Rows in their roles; none of them is there twice.

    Attributes:
        candidates: private rows; the first ``attacked`` are attacked.
        attacked: how many.
        public: rows that the attacker has.
        doubles: how many rows were left out, for they are the same as another.
    """

    candidates: Rows
    attacked: int
    public: PublicRows
    doubles: int


def split(rows: Rows, settings: AuditSettings, first: int = 0, public: Rows | None = None) -> Split:
    """Deals rows at random to attacked ones, other candidates and public ones.

    Args:
        rows: all.
        settings: how many of each, at most, and the seed.
        first: how many of the first rows are attacked in any case and in their order, as those of a capture.
        public: rows that the attacker has; None takes half of ``rows``.

    Returns:
        The roles. As many rows are attacked as fill whole batches and averages, if there are so many.

    Raises:
        ValueError: there are too few rows.
    """
    unique = _different(rows.x)
    unique = torch.cat([torch.arange(first), unique[unique >= first]])
    doubles = len(rows) - len(unique)
    generator = torch.Generator().manual_seed(settings.seed)
    others = unique[first:]
    others = others[torch.randperm(len(others), generator=generator)]
    if public is None:
        cut = min(settings.public, len(others) // 2)
        shared, own = rows.taken(others[:cut]), others[cut:]
    else:
        shared, own = public.taken(torch.arange(min(settings.public, len(public)))), others
    enough = len(shared) >= 10
    what = "at least 20 different rows, half of which the attacker has, or public ones beside them"
    _validate.check(enough, "rows", len(unique), what)
    candidates = torch.cat([unique[:first], own])[: max(settings.candidates, first)]
    attacked = first or min(settings.rows, max(2, len(candidates) // 2))
    chosen = rows.taken(candidates)
    return Split(chosen, attacked, PublicRows(shared.x, shared.y), doubles)


def _different(x: torch.Tensor) -> torch.Tensor:
    """Numbers of rows, each the first one of its kind, ascending."""
    first: dict[bytes, int] = {}
    for number, row in enumerate(x.flatten(1).numpy()):
        first.setdefault(row.tobytes(), number)
    return torch.tensor(list(first.values()))
