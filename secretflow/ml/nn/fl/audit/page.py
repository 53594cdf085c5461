"""The report as one page that needs nothing beside it, in two languages of which it shows one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from secretflow.ml.nn.fl.audit import shown
from secretflow.ml.nn.fl.audit.answer import answer, best, named, not_measured, sorted_scenes
from secretflow.ml.nn.fl.audit.judging import Row, standing, verdict, worst_first
from secretflow.ml.nn.fl.audit.rows import Rows
from secretflow.ml.nn.fl.audit.words import Said, count, say

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --ink: #1b1f24; --paper: #fff; --soft: #f4f6f8;
  --bad: #b42318; --good: #1a7f4b; --open: #8a6100 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #14171a; --soft: #1e2226;
  --bad: #ff8a7a; --good: #6fd39c; --open: #e8c15c } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, "Noto Sans CJK SC", sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.6rem; line-height: 1.2 } h2 { font-size: 1.2rem; margin-top: 2rem } h3 { font-size: 1rem }
.answer { font-size: 1.1rem; background: var(--soft); padding: .8rem 1rem; border-radius: 6px;
  border-left: 4px solid var(--bad) }
.answer.chance { border-color: var(--good) } .answer.undecided { border-color: var(--open) }
.answer.leaks, .answer.chance, .answer.undecided, td small { color: var(--ink); font-weight: 400 }
.answer p { margin: .4rem 0 }
.note { font-size: .9rem } small { opacity: .8 }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0 }
table { border-collapse: collapse; font-size: .875rem; width: 100% }
th, td { padding: .4rem .6rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top }
th { background: var(--soft); white-space: nowrap } tr:last-child td { border-bottom: 0 }
td { min-width: 6rem } td.number { text-align: right; min-width: 0; white-space: nowrap }
.leaks { color: var(--bad); font-weight: 600 } .chance { color: var(--good) } .undecided { color:
var(--open) } .same { font-weight: 600; color: var(--bad) } img { display: block; max-width: 100%; height:
auto; image-rendering: pixelated } figure { margin: 1rem 0 } figcaption { font-size: .875rem }
input[name=language] { position: absolute; opacity: 0 } label { display: inline-block; padding: .1rem .7rem;
border: 1px solid var(--line); border-radius: 1rem;
  cursor: pointer; font-size: .875rem }
#en:checked ~ nav label[for=en], #zh:checked ~ nav label[for=zh] { background: var(--soft); font-weight: 600 }
input:focus-visible ~ nav { outline: 2px solid }
#en:checked ~ main .zh, #zh:checked ~ main .en { display: none }
"""

_SHOWN_SCORES = ("identified", "successes", "recognised")
_VERDICTS = {"leaks": "leaks", "undecided": "undecided", "chance": "at chance"}


def render(content: Mapping[str, Any], examples: Sequence[Row], rows: Rows) -> str:
    """The page.

    Args:
        content: of ``report.json``.
        examples: rows of attackers with what came back, for pictures and tables; () shows no private row.
        rows: candidates, of which those are.
    """
    scenes = sorted_scenes(content)
    worst = verdict(scenes[0]) if scenes else "undecided"
    said = "".join(f"<p>{sentence.html()}</p>" for sentence in answer(content))
    private = f'<p class="note">{say("private").html()}</p>' if examples else ""
    missing = "".join(f"<li>{sentence.html()}</li>" for sentence in not_measured(content))
    title = say("title")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title.en)}</title>
<style>{_STYLE}</style></head><body>
<input type="radio" name="language" id="en" checked><input type="radio" name="language" id="zh">
<nav><label for="en">English</label> <label for="zh" lang="zh">中文</label></nav>
<main>
<h1>{title.html()}</h1>{private}
<h2>{say("answer").html()}</h2><div class="answer {worst}">{said}</div>
<h2>{say("views").html()}</h2>{_views(scenes)}
<p class="note">{_scores(content).html()}</p>
{_all_evidence(scenes, examples, rows)}
<h2>{say("attackers").html()}</h2>{_attackers(scenes)}
<h2>{say("baselines").html()}</h2>{_baselines(content)}
<h2>{say("missing").html()}</h2><ul>{missing}</ul>
<h2>{say("how").html()}</h2><p>{say("knowledge").html()}</p><p>{_settings(content).html()}</p>
</main></body></html>
"""


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


def _table(head: Sequence[str], body: Sequence[Sequence[tuple[str, str]]]) -> str:
    """A table whose cells are a class and HTML."""
    names = "".join(f"<th>{say(name).html()}</th>" for name in head)
    lines = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{text}</td>' for kind, text in line) + "</tr>" for line in body
    )
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>'


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
    return _table(("view", "verdict", *_SHOWN_SCORES), body)


def _score(row: Row | None, score: str, by: bool = False) -> tuple[str, str]:
    """A count, its interval and what guessing comes to."""
    if row is None or row[score] is None:
        return "", f"<small>{say('none').html()}</small>"
    chance = say("chance", rate=_percent(row[f"chance_{score}"]))
    counted = count(row[score], row["images"], row[f"interval_{score}"])
    who = f"<br><small>{say(row['attack']).html()}</small>" if by else ""
    return standing(row, score) or "", f"{counted.html()}<br><small>{chance.html()}</small>{who}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


def _all_evidence(scenes: Sequence[Sequence[Row]], examples: Sequence[Row], rows: Rows) -> str:
    found = "".join(_evidence(scene, examples, rows) for scene in scenes)
    return f"<h2>{say('evidence').html()}</h2>{found}" if found else ""


def _evidence(scene: Sequence[Row], examples: Sequence[Row], rows: Rows) -> str:
    """Pictures or tables of the attacker that rebuilds most."""
    own = [row for row in examples if row["scene"] == scene[0]["scene"]]
    row = best(own, "successes") or (own[0] if own else None)
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
    return _table(("view", "attack", *_SHOWN_SCORES, "rank", "error", "seconds"), body)


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
    return _table(("view", "baseline", *_SHOWN_SCORES, "rank", "error"), body)
