"""Three scores of what came back: got back, identified, recognised; and what guessing would have come to.

Scoring sees the truth; an attacker never does.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment

from secretflow.ml.nn.fl.attacks import PublicRows
from secretflow.ml.nn.fl.audit.attempt import Findings, Guess
from secretflow.ml.nn.fl.audit.intervals import wilson_interval
from secretflow.ml.nn.fl.audit.rows import Rows
from secretflow.ml.nn.fl.audit.scenes import Scene
from secretflow.ml.nn.fl.audit.scores import ranks

Row = dict[str, Any]

SCORES = ("successes", "identified", "recognised")
MARGIN = 0.1
"""How far above chance the interval may reach for a score to count as at chance, and not as undecided."""

EXAMPLES = 6
_NEIGHBOURS = 5
_OF_PUBLIC = 5_000
_AT_ONCE = 1024
_NEAR = 0.05
"""Part of a column's range within which a number counts as known."""


@dataclass(frozen=True)
class Judge:
    """Compares what came back with the truth.

    Args:
        rows: candidates, in the space of :meth:`Rows.scored`.
        public: rows that attackers have.
        seed: of the blind attackers.
    """

    rows: Rows
    public: PublicRows
    seed: int

    def blind(self, scene: Scene) -> Iterator[tuple[str, Row]]:
        """What guessing comes to: three who see nothing, and one who sees the truth and names a row he has.

        Args:
            scene: the view that they do not see.

        Yields:
            Name and scores.
        """
        groups, together = scene.numbers.shape
        generator = torch.Generator().manual_seed(self.seed)
        low, high = self.rows.x.amin(dim=0), self.rows.x.amax(dim=0)
        count = groups * together
        noise = low + (high - low) * torch.rand(count, *self.rows.shape, generator=generator)
        drawn = torch.randint(len(self.public.x), (count,), generator=generator)
        truth = self.rows.x[scene.numbers.flatten()]
        typical = self.public.x.mean(dim=0) if self.rows.kind != "tokens" else self.public.x[drawn[0]]
        guesses = {
            "mean": typical.expand(count, *self.rows.shape),
            "random public rows": self.public.x[drawn],
            "noise": noise.round() if self.rows.kind == "tokens" else noise,
            "nearest public rows": self.public.x[self._nearest(truth, 1)[:, 0]],
        }
        for name, guess in guesses.items():
            parts = tuple(Guess(part, None) for part in guess.split(together))
            yield name, self.scored(Findings(parts), scene)

    def scored(self, findings: Findings, scene: Scene) -> Row:
        """What an attacker has on the three scores.

        Args:
            findings: of an attacker.
            scene: that was attacked; of its observations the first ones count that the attacker spoke of.

        Returns:
            Counts, their intervals and medians; None where a score says nothing.
        """
        numbers = scene.numbers[: findings.observations]
        if findings.scores is not None:
            places = torch.cat([_places(s, own) for s, own in zip(findings.scores, numbers, strict=True)])
            row = self._row({"identified": int((places == 1).sum())}, places, [])
            row |= {"candidates": findings.among or len(self.rows), "picks": True}
            row["examples"] = self._picked(findings.scores[0], numbers[0], places)
            return row
        found, labels = self._aligned(findings.guesses, numbers)
        flat = numbers.flatten()
        errors = self.rows.errors(found, self.rows.x[flat])
        both = self.rows.scored(torch.cat([found, self.rows.x]))
        places = ranks(both[: len(found)], flat, both[len(found) :], None)
        named = torch.stack([self._classified(found), labels]) == self.rows.y[flat]
        counts = {
            "successes": int((errors < self.rows.success_error).sum()),
            "identified": int((places == 1).sum()),
            "recognised": int(named.sum(dim=1).max()),
        }
        row = self._row(counts, places, errors.tolist())
        filled = self.public.x.mean(dim=0)
        row["examples"] = [
            [int(number), None if torch.equal(found[k], filled) else found[k].tolist()]
            for k, number in enumerate(flat[:EXAMPLES].tolist())
        ]
        if self.rows.kind == "table":
            row["columns"] = self._columns(found, self.rows.x[flat])
        return row

    def _picked(self, scores: torch.Tensor, own: torch.Tensor, places: torch.Tensor) -> list[list[Any]]:
        """Rows of one observation, each with itself if it was picked, else with another that was."""
        mine = own.tolist()
        wrong = (number for number in scores.argsort(descending=True).tolist() if number not in mine)
        picked = [
            number if place == 1 else next(wrong, number)
            for number, place in zip(mine[:EXAMPLES], places.tolist(), strict=False)
        ]
        return [[number, self.rows.x[pick].tolist()] for number, pick in zip(mine, picked, strict=False)]

    def classifier_accuracy(self, numbers: torch.Tensor) -> float:
        """Part of true rows that the classifier names right, the most that it can recognise."""
        return float((self._classified(self.rows.x[numbers]) == self.rows.y[numbers]).double().mean())

    def _row(self, counts: Mapping[str, int], places: torch.Tensor, errors: Sequence[float]) -> Row:
        images = len(places)
        row: Row = {"images": images, "candidates": len(self.rows)}
        for score in SCORES:
            count = counts.get(score)
            interval = None if count is None else [round(end, 4) for end in wilson_interval(count, images)]
            row |= {score: count, f"interval_{score}": interval}
        row["median_rank"] = int(places.median())
        row["median_error"] = statistics.median(errors) if errors else None
        return row

    def _aligned(self, guesses: Sequence[Guess], numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and labels in the order of the true ones; what did not come back is the mean row."""
        rows, labels = [], []
        mean = self.public.x.mean(dim=0)
        for guess, own in zip(guesses, numbers, strict=True):
            count = len(own)
            found = mean.expand(count, *self.rows.shape).clone()
            read = torch.full((count,), -1)
            some = guess.images[:count].to(found).nan_to_num()
            found[: len(some)] = some
            if guess.labels is not None:
                read[: len(some)] = guess.labels[:count]
            space = self.rows.scored(torch.cat([found, self.rows.x[own]])).double()
            costs = torch.cdist(space[count:], space[:count]).square()
            order = torch.from_numpy(linear_sum_assignment(costs.numpy())[1])
            rows.append(found[order])
            labels.append(read[order])
        return torch.cat(rows), torch.cat(labels)

    def _nearest(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """Numbers of the nearest public rows, (rows, count)."""
        public = self.public.x
        both = self.rows.scored(torch.cat([public, rows])).float()
        own, others = both[len(public) :], both[: len(public)]
        count = min(count, len(public))
        return torch.cat(
            [torch.cdist(part, others).topk(count, largest=False).indices for part in own.split(_AT_ONCE)]
        )

    def _classified(self, rows: torch.Tensor) -> torch.Tensor:
        """Class of most of the nearest public rows."""
        few = PublicRows(self.public.x[:_OF_PUBLIC], self.public.y[:_OF_PUBLIC])
        return few.y[Judge(self.rows, few, self.seed)._nearest(rows, _NEIGHBOURS)].mode(dim=1).values

    def _columns(self, found: torch.Tensor, truth: torch.Tensor) -> list[list[Any]]:
        """Of each column the name, in how many rows it is known, and in how many the mean row is right."""
        mean = self.public.x.mean(dim=0).expand_as(truth)
        result = []
        for column in self.rows.columns:
            true = column.scored(truth)
            near = [
                int(((column.scored(guess.float()) - true).abs().amax(dim=1) <= _NEAR).sum())
                for guess in (found, mean)
            ]
            result.append([column.name, *near])
        return result


def _places(scores: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The rank of each row that is in it among itself and the candidates that are not, 1 is best."""
    others = torch.ones(len(scores), dtype=torch.bool)
    others[own] = False
    return 1 + (scores[others] >= scores[own][:, None]).sum(dim=1)


def chances(row: Row, blind: Mapping[str, Row], most_frequent: float) -> dict[str, float]:
    """What guessing comes to on each score.

    Args:
        row: of an attacker.
        blind: rows of the blind attackers on the same scene, by name.
        most_frequent: part of the rows that the most frequent class has.

    Returns:
        Rates: the best of those who see nothing, and for "identified" at least one in as many as candidates;
        only that for an attacker who picks, since he is not helped by the order in which rows are compared.
    """
    unseeing = [other for name, other in blind.items() if name != "nearest public rows"]
    rates = {
        score: max((other[score] or 0) / other["images"] for other in unseeing) if unseeing else 0.0
        for score in SCORES
    }
    rates["identified"] = max(1 / row["candidates"], 0.0 if row.get("picks") else rates["identified"])
    rates["recognised"] = max(most_frequent, rates["recognised"])
    return rates


def standing(row: Row, score: str) -> str | None:
    """Where a score stands: "leaks", "chance", "undecided"; None if it was not taken.

    Args:
        row: with counts, intervals and chances.
        score: one of ``SCORES``.
    """
    interval = row.get(f"interval_{score}")
    if interval is None:
        return None
    chance = row[f"chance_{score}"]
    if interval[0] > chance:
        return "leaks"
    return "chance" if interval[1] <= chance + MARGIN else "undecided"


def verdict(rows: Sequence[Row]) -> str:
    """What the attackers of a view come to: "leaks", "undecided" or "chance".

    Args:
        rows: of all attackers of the view; none at all is undecided.

    Returns:
        "chance" only if each of the three scores was taken and is at chance for every attacker.
    """
    found = {score: {standing(row, score) for row in rows} - {None} for score in SCORES}
    if any("leaks" in places for places in found.values()):
        return "leaks"
    return "chance" if all(places == {"chance"} for places in found.values()) else "undecided"


def worst_first(row: Row) -> tuple[float, ...]:
    """A key that sorts attackers, the worst one for the party first."""
    rates = [(row[f"interval_{score}"] or [0])[0] for score in ("identified", "successes", "recognised")]
    leaks = sum(standing(row, score) == "leaks" for score in SCORES)
    return tuple(-value for value in (leaks > 0, *rates))
