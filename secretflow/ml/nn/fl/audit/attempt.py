"""What an attacker of an audit is given, and what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch

from secretflow.ml.nn.fl.attacks import Observation, PublicRows, Reconstruction
from secretflow.ml.nn.fl.attacks.activations import as_activations
from secretflow.ml.nn.fl.attacks.observation import Progress
from secretflow.ml.nn.fl.attacks.public import Distort
from secretflow.ml.nn.fl.attacks.ridge import RidgeInverter, regress
from secretflow.ml.nn.fl.attacks.row_gradients import RowGradients, learn_row_gradients
from secretflow.ml.nn.fl.audit.rows import Rows
from secretflow.ml.nn.fl.audit.scenes import Scene

_FEATURES = 1500
_WARM, _TIMED = 8, 128
"""Public rows on which the speed of the net is taken, before and when."""


class OutOfTimeError(Exception):
    """A search does not fit into its time.

    Args:
        needed: seconds that it takes at least; None is unknown.
    """

    def __init__(self, needed: float | None) -> None:
        super().__init__(needed)
        self.needed = needed


@dataclass(frozen=True)
class Guess:
    """What came back of one observation.

    Attributes:
        images: rows, float of shape (found, *shape of a row), in no order; fewer than there were is allowed.
        labels: that were read with them, int64 of shape (found,), -1 is not known; None if none were.
    """

    images: torch.Tensor
    labels: torch.Tensor | None


@dataclass(frozen=True)
class Findings:
    """What an attacker says of the first observations of a scene.

    Attributes:
        guesses: of each; () of an attacker who picks candidates.
        scores: of each the candidates', float of shape (observations, candidates), highest are in it; None of
            an attacker who rebuilds rows.
        among: how many candidates have a score, the first ones; None is all.
        effort: what was spared of the usual effort: "public" rows or "observations" that were used, "of" how
            many, and "steps" of a search; empty if nothing was.
    """

    guesses: tuple[Guess, ...] = ()
    scores: torch.Tensor | None = None
    among: int | None = None
    effort: Mapping[str, int] = field(default_factory=dict)

    @property
    def observations(self) -> int:
        """How many were attacked."""
        return len(self.guesses) if self.scores is None else len(self.scores)


@dataclass(frozen=True)
class Learned:
    """What public rows have taught, once for all attackers of a scene.

    Attributes:
        gradients: of the rows.
        seconds: of each row.
        seed: of which rows are held out of the regression.
    """

    gradients: RowGradients
    seconds: float
    seed: int

    @cached_property
    def regression(self) -> RidgeInverter:
        """The regression of the rows on their gradients."""
        known = self.gradients
        return regress(known.features, known.seen, known.public, self.seed)


@dataclass
class Attempt:
    """What an attacker is given.

    Attributes:
        scene: what is seen.
        rows: candidates, without saying which are attacked.
        public: rows that the attacker has.
        seconds: that it may take, about.
        seed: of what it draws.
        progress: called with the part that is done.
        learned: by the name of a scene what public rows have taught, once it is known.
    """

    scene: Scene
    rows: Rows
    public: PublicRows
    seconds: float
    seed: int
    progress: Progress
    learned: dict[str, Learned] = field(default_factory=dict)

    def row_gradients(self) -> Learned:
        """Gradients of as many public rows as half of the time allows."""
        return self._learned(self.scene.name, self.scene.observations[0], self.scene.distort)

    def activations(self) -> tuple[list[Observation], Learned]:
        """Both, what was seen and what public rows show, as what fully connected layers were given.

        Raises:
            ValueError: the net has no such layer with a bias.
        """
        first = self.scene.observations[0]
        change, distort = as_activations(first), self.scene.distort

        def both(arrays: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return change(arrays if distort is None else distort(arrays))

        seen = [replace(each, gradients=change(each.gradients)) for each in self.scene.observations]
        return seen, self._learned(f"{self.scene.name}, activations", first, both)

    def _learned(self, name: str, first: Observation, distort: Distort | None) -> Learned:
        if name not in self.learned:
            public = self.public
            for count in (_WARM, _TIMED):  # the first call takes longer
                few = PublicRows(public.x[:count], public.y[:count])
                started = time.perf_counter()
                learn_row_gradients(first, few, _FEATURES, self.seed, distort)
            each = (time.perf_counter() - started) / len(few.x)
            count = max(_TIMED, min(len(public.x), int(self.seconds / 2 / each)))
            some = PublicRows(public.x[:count], public.y[:count])
            gradients = learn_row_gradients(first, some, _FEATURES, self.seed, distort)
            self.learned[name] = Learned(gradients, each, self.seed)
        return self.learned[name]


@dataclass(frozen=True)
class Attacker:
    """An attack that the audit tries.

    Attributes:
        name: of the attack; the report's words for it are in :mod:`.words`.
        searches: whether it takes long; then it is tried on few observations, when all others are through.
        run: attacks a scene.
        kinds: of rows.
        together: whether it takes several rows in an observation; None is both.
        refuses: asked before ``run``: raises ValueError, at once, for an observation that it cannot attack
            however long it takes.
    """

    name: str
    searches: bool
    run: Callable[[Attempt], Findings]
    kinds: tuple[str, ...] = ("images", "table")
    together: Literal[True, False] | None = None
    refuses: Callable[[Observation], object] = lambda _: None

    def unfit(self, kind: str, rows_together: int) -> str | None:
        """Why it is not for such a view; None if it is.

        Args:
            kind: of the rows.
            rows_together: how many are in an observation.
        """
        if kind not in self.kinds:
            return f"for {' and '.join(self.kinds)}"
        if self.together in (None, rows_together > 1):
            return None
        return "for several rows together" if self.together else "for one row alone"


def all_of(results: Sequence[Reconstruction], effort: Mapping[str, int] | None = None) -> Findings:
    """What an attacker found that has one result for each observation."""
    return Findings(tuple(Guess(result.images, result.labels) for result in results), effort=effort or {})
