"""What the page of this audit shows, in the layout of all audits' pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from experiments.audit import words
from experiments.audit.answer import (
    Row,
    attacker,
    beyond_chance,
    sentences,
    through,
    with_chance,
    worst_first,
)
from experiments.audit.words import said
from secretflow.ml.nn.fl.audit.intervals import wilson_interval
from secretflow.ml.nn.fl.audit.judging import MARGIN
from secretflow.ml.nn.fl.audit.layout import Cell, answered, counted, document, items, paragraphs, table
from secretflow.ml.nn.fl.audit.words import Said

_SCENE = ("data", "view", "defence", "level")
_OF_SCENE = ("images", "view", "defence", "removed or noise", "living")


def render(content: Mapping[str, Any], pictures: Mapping[Said, str]) -> str:
    """The page.

    Args:
        content: of ``report.json``.
        pictures: caption and ``data:`` address of each picture.
    """
    rows, baselines = (with_chance(content[name], content["baselines"]) for name in ("rows", "baselines"))
    missing = len(content["missing"])
    state = Said(f"Not complete: {missing} rows are missing.", f"尚未完成：缺少 {missing} 行。")  # noqa: RUF001
    verdict = "leaks" if any(map(beyond_chance, rows)) else "undecided"
    figures = "".join(_figure(caption, address) for caption, address in pictures.items())
    parts: list[tuple[Said | None, str]] = [
        *([(None, paragraphs([state], "note"))] if missing else []),
        (words.ANSWER, answered(verdict, sentences(content))),
        (words.VIEWS, _views(rows)),
        (words.FIGURES, f'<div class="figures">{figures}</div>'),
        (words.ROWS, _rows(rows, baselines)),
        (words.ACCURACY, _accuracies(content["accuracies"], rows)),
        (words.LIMITS, items(words.NOT_MEASURED)),
        (words.METHOD, paragraphs(words.HOW) + _settings(content)),
    ]
    return document(words.TITLE, parts)


def _figure(caption: Said, address: str) -> str:
    picture = f'<img src="{address}" alt="{escape(caption.en)}">'
    return f'<figure class="plot">{picture}<figcaption>{caption.html()}</figcaption></figure>'


def _views(rows: Sequence[Row]) -> str:
    """Of each view, images and defence the attackers that identify and get back most."""
    scenes: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        scenes.setdefault(tuple(str(row[name]) for name in _SCENE), []).append(row)
    best = [
        [min(own, key=worst_first), min(own, key=lambda row: (-row["successes"], worst_first(row)))]
        for own in scenes.values()
    ]
    body = [
        [*_scene(one), _score(one, "identified", by=True), _score(other, "successes", by=True)]
        for one, other in sorted(best, key=lambda pair: worst_first(pair[0]))
    ]
    return table([*map(said, (*_OF_SCENE, "identified", "got back"))], body)


def _scene(row: Row) -> list[Cell]:
    names = [("", said(row[name]).html()) for name in ("data", "view", "defence")]
    return [*names, ("number", f"{row['level']:g}"), ("number", f"{100 * row['density']:.3g} %")]


def _rows(rows: Sequence[Row], baselines: Sequence[Row]) -> str:
    """All attackers, and those who see nothing."""
    order = sorted(rows, key=lambda row: (*(row[name] for name in _SCENE), *worst_first(row)))
    head = [*map(said, (*_OF_SCENE, "attacker", "identified", "got back", "MSE", "labels right"))]
    return table(head, [*map(_attacked, order), *map(_blind, baselines)])


def _attacked(row: Row) -> list[Cell]:
    labels = row.get("label_accuracy")
    return [
        *_scene(row),
        ("", attacker(row).html()),
        *_scores(row),
        ("number", f"{row['median_mse']:.2g}"),
        ("number", "" if labels is None else f"{100 * labels:.0f} %"),
    ]


def _blind(row: Row) -> list[Cell]:
    nothing = ("", "")
    name = said(row["baseline"]).html()
    mse = ("number", f"{row['median_mse']:.2g}")
    return [("", said(row["data"]).html()), *[nothing] * 4, ("", name), *_scores(row), mse, nothing]


def _scores(row: Row) -> list[Cell]:
    return [_score(row, "identified"), _score(row, "successes")]


def _score(row: Row, score: str, by: bool = False) -> Cell:
    chance = row["chance"] if score == "identified" else 0.0
    interval = wilson_interval(row[score], row["images"])
    at_chance = "chance" if interval[1] <= chance + MARGIN else "undecided"
    kind = "leaks" if interval[0] > chance else at_chance
    return kind, counted(row[score], row["images"], interval, chance, attacker(row) if by else None)


def _accuracies(accuracies: Sequence[Row], rows: Sequence[Row]) -> str:
    names = "defence", "removed or noise", "mean test accuracy", "over seeds", "identified", "got back"
    body = []
    for row in accuracies:
        best = through(rows, row["defence"], row["level"])
        nothing = [("", "")] * 2
        body.append(
            [
                ("", said(row["defence"]).html()),
                ("number", f"{row['level']:g}"),
                ("number", f"{100 * row['accuracy']:.1f} %"),
                ("number", f"{100 * min(row['accuracies']):.1f} - {100 * max(row['accuracies']):.1f} %"),
                *(nothing if best is None else _scores(best)),
            ]
        )
    return table([said(name) for name in names], body)


def _settings(content: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in content["settings"].items())
    versions = ", ".join(f"{name} {value}" for name, value in content["versions"].items())
    return f"<p>{escape(settings)}. {escape(versions)}.</p>"
