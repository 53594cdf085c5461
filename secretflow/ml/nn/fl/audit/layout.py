"""How a report looks: one page that needs nothing beside it, in two languages of which it shows one."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

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
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
.note { font-size: .9rem } small { opacity: .8 }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0 }
table { border-collapse: collapse; font-size: .875rem; width: 100% }
th, td { padding: .4rem .6rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top }
th { background: var(--soft); white-space: nowrap } tr:last-child td { border-bottom: 0 }
td { min-width: 6rem } td.number { text-align: right; min-width: 0; white-space: nowrap }
.leaks { color: var(--bad); font-weight: 600 } .chance { color: var(--good) } .undecided { color:
var(--open) } .same { font-weight: 600; color: var(--bad) }
figure.plot img { background: #fff; image-rendering: auto; border-radius: 6px }
img { display: block; max-width: 100%; height:
auto; image-rendering: pixelated } figure { margin: 1rem 0 } figcaption { font-size: .875rem }
input[name=language] { position: absolute; opacity: 0 } label { display: inline-block; padding: .1rem .7rem;
border: 1px solid var(--line); border-radius: 1rem;
  cursor: pointer; font-size: .875rem }
#en:checked ~ nav label[for=en], #zh:checked ~ nav label[for=zh] { background: var(--soft); font-weight: 600 }
input:focus-visible ~ nav { outline: 2px solid }
#en:checked ~ main .zh, #zh:checked ~ main .en { display: none }
"""

Cell = tuple[str, str]
"""Class and HTML."""


def document(title: Said, parts: Sequence[tuple[Said | None, str]]) -> str:
    """A page of HTML by itself, with its style.

    Args:
        title: of the page.
        parts: heading, None for none, and HTML of each.
    """
    body = "".join(f"{'' if head is None else f'<h2>{head.html()}</h2>'}\n{html}\n" for head, html in parts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title.en)}</title>
<style>{_STYLE}</style></head><body>
<input type="radio" name="language" id="en" checked><input type="radio" name="language" id="zh">
<nav><label for="en">English</label> <label for="zh" lang="zh">中文</label></nav>
<main>
<h1>{title.html()}</h1>
{body}</main></body></html>
"""


def table(head: Sequence[Said], body: Sequence[Sequence[Cell]]) -> str:
    """A table that can be wider than the page."""
    names = "".join(f"<th>{name.html()}</th>" for name in head)
    lines = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{text}</td>' for kind, text in line) + "</tr>" for line in body
    )
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>'


def items(sentences: Sequence[Said]) -> str:
    """A list in HTML, of one point for each sentence."""
    return "<ul>" + "".join(f"<li>{sentence.html()}</li>" for sentence in sentences) + "</ul>"


def paragraphs(sentences: Sequence[Said], kind: str = "") -> str:
    """A paragraph for each sentence.

    Args:
        sentences: to say.
        kind: class of each.
    """
    return "".join(f'<p class="{kind}">{sentence.html()}</p>' for sentence in sentences)


def answered(verdict: str, sentences: Sequence[Said]) -> str:
    """The answer, in the colour of a verdict: "leaks", "undecided" or "chance"."""
    return f'<div class="answer {verdict}">{paragraphs(sentences)}</div>'


def counted(number: int, images: int, interval: tuple[float, float], chance: float, who: Said | None) -> str:
    """A count, its interval, what guessing comes to, and whose it is."""
    guessing = say("chance", rate=f"{100 * chance:.3g} %")
    by = f"<br><small>{who.html()}</small>" if who else ""
    return f"{count(number, images, interval).html()}<br><small>{guessing.html()}</small>{by}"
