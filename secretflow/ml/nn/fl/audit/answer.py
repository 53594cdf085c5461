"""What an audit says in sentences, each made from counts: the answer, and what was not measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from secretflow.ml.nn.fl.audit.judging import Row, standing, verdict
from secretflow.ml.nn.fl.audit.reasons import NO_TIME, minutes_needed, reason
from secretflow.ml.nn.fl.audit.words import Said, count, say

_SEVERITY = {"leaks": 0, "undecided": 1, "chance": 2}
_ORDER = ("identified", "successes", "recognised")
MANY_CANDIDATES = 10_000


def by_scene(content: Mapping[str, Any]) -> dict[str, list[Row]]:
    """The attackers' rows of each scene, those of one without any included."""
    return {name: [row for row in content["rows"] if row["scene"] == name] for name in content["scenes"]}


def best(rows: Sequence[Row], score: str) -> Row | None:
    """The attacker that is best on a score; None if nobody took it."""
    taken = [row for row in rows if row[score] is not None]
    return max(taken, key=lambda row: row[f"interval_{score}"][0], default=None)


def most_telling(rows: Sequence[Row]) -> Row | None:
    """The attacker whose findings tell most: who gets most rows back or, if nobody does, identifies most.

    Args:
        rows: of one view.
    """
    rebuilds = best(rows, "successes")
    if rebuilds is None or not rebuilds["successes"]:
        return best(rows, "identified") or rebuilds
    return rebuilds


def named(row: Row) -> Said:
    """The view of a row, or of an attacker that was not tried."""
    parts = {"batch": row["batch_size"], "parties": row["parties"], "name": row["scene"]}
    return say(row["view"], **parts)


def what_was_got(rows: Sequence[Row], leaking: bool) -> Said:
    """What the best attackers of a view do, in words.

    Args:
        rows: of one view.
        leaking: whether only scores above chance are told.
    """
    parts = []
    for score in _ORDER:
        row = best(rows, score)
        if row is None or (leaking and standing(row, score) != "leaks"):
            continue
        counted = count(row[score], row["images"], row[f"interval_{score}"])
        parts.append(say(f"does {score}", count=counted, candidates=f"{row['candidates']:,}"))
    if not parts:
        return say("did nothing")
    said, joint = parts[0], say("and")
    for part in parts[1:]:
        said = Said(said.en + joint.en + part.en, said.zh + joint.zh + part.zh)
    return said


def answer(content: Mapping[str, Any]) -> tuple[Said, Said]:
    """The two sentences that a report begins with.

    Args:
        content: of ``report.json``.

    Returns:
        One on what a single party sends or computes, one on averages; of each the worst view.
    """
    scenes = by_scene(content)
    single = [name for name in scenes if not name.startswith("average")]
    averages = [name for name in scenes if name.startswith("average")]
    first, leaks = _sentence(_worst(scenes, single), "leaks view")
    if not averages:
        return first, say("no averages")
    second, _ = _sentence(_worst(scenes, averages), "also leaks" if leaks else "leaks only")
    return first, second


def _worst(scenes: Mapping[str, list[Row]], names: Sequence[str]) -> list[Row]:
    return min((scenes[name] for name in names), key=_severity)


def _severity(rows: Sequence[Row]) -> tuple[float, ...]:
    rates = [_lower(best(rows, score), score) for score in _ORDER]
    return _SEVERITY[verdict(rows)], *(-rate for rate in rates)


def _lower(row: Row | None, score: str) -> float:
    return 0.0 if row is None else row[f"interval_{score}"][0]


def sorted_scenes(content: Mapping[str, Any]) -> list[list[Row]]:
    """The rows of each scene that was attacked, the worst scene first."""
    return sorted(filter(None, by_scene(content).values()), key=_severity)


def _sentence(rows: Sequence[Row], leaking: str) -> tuple[Said, bool]:
    if not rows:
        return say("did nothing"), False
    found = verdict(rows)
    key = leaking if found == "leaks" else f"{found} view"
    return say(key, view=named(rows[0]), what=what_was_got(rows, found == "leaks")), found == "leaks"


def not_measured(content: Mapping[str, Any]) -> Iterator[Said]:
    """What the audit did not do.

    Args:
        content: of ``report.json``.

    Yields:
        Sentences.
    """
    yield say("no other attackers")
    reasons: dict[tuple[str, Said], list[Row]] = {}
    for one in sorted(content["not_measured"], key=lambda one: (one["attack"], one["why"])):
        reasons.setdefault((one["attack"], reason(one)), []).append(one)
    for (attack, why), each in reasons.items():
        yield say("no attack", attack=say(attack), views=_listed(map(named, each)), why=why)
    for row in content["rows"]:
        if row["effort"]:
            kind = "spared rows" if "public" in row["effort"] else "spared search"
            yield say(kind, attack=say(row["attack"]), view=named(row), **row["effort"])
    for parties in content["left_out"]:
        yield say("no average of", parties=parties)
    yield say("no other weights" if content["trained"] else "no training")
    if content["switched_off"]:
        yield say("no dropout", names=", ".join(content["switched_off"]))
    if content["candidates"] < MANY_CANDIDATES:
        yield say("few candidates", candidates=f"{content['candidates']:,}")
    accuracy, frequent = content["classifier_accuracy"], content["most_frequent"]
    if accuracy < frequent + 0.1:
        yield say("no classifier", rate=f"{accuracy:.0%}", frequent=f"{frequent:.0%}")
    yield say("no other public")
    yield say("no optimiser")
    yield say("no weights")
    yield say("no rounds")
    yield say("no malice")
    yield say("no noise")
    if content["settings"]["bits"] is not None:
        yield say("no bits")


def tried(content: Mapping[str, Any]) -> Iterator[Said]:
    """Which attackers were tried on each view, and why the others were not.

    Args:
        content: of ``report.json``.

    Yields:
        Sentences.
    """
    left_out = [*content["not_measured"], *content["not_for_it"]]
    for scene, rows in by_scene(content).items():
        others = [one for one in left_out if one["scene"] == scene]
        attackers = _listed(say(row["attack"]) for row in rows) if rows else say("nobody")
        yield say("tried", view=named((rows or others)[0]), attackers=attackers)
        reasons: dict[Said, list[str]] = {}
        for one in others:
            reasons.setdefault(reason(one), []).append(one["attack"])
        for why, attacks in reasons.items():
            yield say("not tried", attackers=_listed(map(say, attacks)), why=why)


def not_run(content: Mapping[str, Any]) -> Iterator[Said]:
    """For whom the time was too short.

    Args:
        content: of ``report.json``.

    Yields:
        A sentence for each view of which there is somebody.
    """
    views: dict[Said, list[Said]] = {}
    for one in content["not_measured"]:
        if one["why"] == NO_TIME:
            attack, minutes = say(one["attack"]), minutes_needed(one)
            said = attack if minutes is None else say("takes", attack=attack, minutes=minutes)
            views.setdefault(named(one), []).append(said)
    for view, attacks in views.items():
        yield say("not run", view=view, attacks=_listed(attacks))


def _listed(names: Iterable[Said]) -> Said:
    every = list(names)
    return Said(", ".join(name.en for name in every), "、".join(name.zh for name in every))
