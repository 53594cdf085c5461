"""What the page of an audit shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secretflow.ml.nn.fl.audit import shown
from secretflow.ml.nn.fl.audit.answer import (
    answer,
    best,
    most_telling,
    named,
    not_measured,
    not_run,
    sorted_scenes,
)
from secretflow.ml.nn.fl.audit.judging import Row, standing, verdict, worst_first
from secretflow.ml.nn.fl.audit.layout import answered, counted, document, items, paragraphs, table
from secretflow.ml.nn.fl.audit.rows import Rows
from secretflow.ml.nn.fl.audit.words import Said, count, say

_SHOWN_SCORES = ("identified", "successes", "recognised")
_VERDICTS = {"leaks": "leaks", "undecided": "undecided", "chance": "at chance"}


def render(content: Mapping[str, Any], examples: Sequence[Row], rows: Rows) -> str:
    """The report of an audit as a page of HTML.

    Args:
        content: of ``report.json``.
        examples: rows of attackers with what came back, for pictures and tables; () shows no private row.
        rows: candidates, of which those are.
    """
    scenes = sorted_scenes(content)
    worst = verdict(scenes[0]) if scenes else "undecided"
    private = paragraphs([say("private")], "note") if examples else ""
    evidence = "".join(_evidence(scene, examples, rows) for scene in scenes)
    return document(
        say("title"),
        [
            *([(None, private)] if private else []),
            (say("answer"), answered(worst, [*answer(content), *not_run(content)])),
            (say("views"), _views(scenes) + paragraphs([_scores(content)], "note")),
            *([(say("evidence"), evidence)] if evidence else []),
            (say("attackers"), _attackers(scenes)),
            (say("baselines"), _baselines(content)),
            (say("missing"), items(list(not_measured(content)))),
            (say("how"), paragraphs([say("knowledge"), _settings(content)])),
        ],
    )


def _scores(content: Mapping[str, Any]) -> Said:
    return say("scores", success=say(f"success {content['kind']}"))


def _settings(content: Mapping[str, Any]) -> Said:
    chosen = content["settings"]
    return say(
        "settings",
        net=content["net"],
        weights=say("given" if content["trained"] else "fresh"),
        loss=content["loss"],
        density=f"{min((row['density'] for row in content['rows']), default=1):.3g}",
        bits=chosen["bits"] or say("all"),
        steps=chosen["local_steps"],
        attacked=content["attacked"],
        candidates=f"{content['candidates']:,}",
        public=f"{content['public']:,}",
        seed=chosen["seed"],
        doubles=content["doubles"],
    )


def _views(scenes: Sequence[Sequence[Row]]) -> str:
    body = []
    for rows in scenes:
        found = verdict(rows)
        seen = say("sees average" if rows[0]["view"] == "average" else "sees upload")
        body.append(
            [
                ("", f"{named(rows[0]).html()}<br><small>{seen.html()}</small>"),
                (found, say(_VERDICTS[found]).html()),
                *(_score(best(rows, score), score, by=True) for score in _SHOWN_SCORES),
            ]
        )
    return table([say(name) for name in ("view", "verdict", *_SHOWN_SCORES)], body)


def _score(row: Row | None, score: str, by: bool = False) -> tuple[str, str]:
    """A count, its interval and what guessing comes to."""
    if row is None or row[score] is None:
        return "", f"<small>{say('none').html()}</small>"
    html = counted(
        row[score],
        row["images"],
        row[f"interval_{score}"],
        row[f"chance_{score}"],
        say(row["attack"]) if by else None,
    )
    return standing(row, score) or "", html


def _evidence(scene: Sequence[Row], examples: Sequence[Row], rows: Rows) -> str:
    """Pictures or tables of what the most telling attacker has."""
    row = most_telling([row for row in examples if row["scene"] == scene[0]["scene"]])
    if row is None:
        return ""
    caption = f"{named(row).html()}: {say(row['attack']).html()}"
    return f"<h3>{caption}</h3>{shown.examples(row, rows)}"


def _attackers(scenes: Sequence[Sequence[Row]]) -> str:
    body = []
    for rows in scenes:
        for row in sorted(rows, key=worst_first):
            error = "" if row["median_error"] is None else f"{row['median_error']:.3g}"
            body.append(
                [
                    ("", named(row).html()),
                    ("", say(row["attack"]).html()),
                    *(_score(row, score) for score in _SHOWN_SCORES),
                    ("number", f"{row['median_rank']:,}"),
                    ("number", error),
                    ("number", f"{row['seconds']:.0f}"),
                ]
            )
    head = "view", "attack", *_SHOWN_SCORES, "rank", "error", "seconds"
    return table([say(name) for name in head], body)


def _baselines(content: Mapping[str, Any]) -> str:
    views = {row["scene"]: named(row) for row in content["rows"]}
    body = [
        [
            ("", views[row["scene"]].html()),
            ("", say(row["baseline"]).html()),
            *(
                ("", count(row[score], row["images"], row[f"interval_{score}"]).html())
                for score in _SHOWN_SCORES
            ),
            ("number", f"{row['median_rank']:,}"),
            ("number", f"{row['median_error']:.3g}"),
        ]
        for row in content["baselines"]
        if row["scene"] in views
    ]
    return table([say(name) for name in ("view", "baseline", *_SHOWN_SCORES, "rank", "error")], body)
