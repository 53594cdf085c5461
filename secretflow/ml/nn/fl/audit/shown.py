"""What came back, to look at: pictures, tables of values, words."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

import numpy as np
import torch

from secretflow.ml.nn.fl.audit.judging import Row
from secretflow.ml.nn.fl.audit.rows import Rows
from secretflow.ml.nn.fl.audit.words import say

_SIDE = 112
"""Pixels of a shown picture at least."""
_GAP = 4
_COLUMNS = 12


def examples(row: Row, rows: Rows) -> str:
    """The first true rows and what an attacker made of them, in HTML.

    Args:
        row: of the attacker, with its examples: numbers of true rows, each with what came back, None if
            nothing did.
        rows: candidates, of which the true ones are.
    """
    numbers = [number for number, _ in row["examples"]]
    truth = rows.x[numbers]
    back = [image is not None for _, image in row["examples"]]
    high = rows.value_range[1]
    found = torch.stack(
        [
            torch.full_like(own, high) if image is None else torch.tensor(image).to(own).view_as(own)
            for own, (_, image) in zip(truth, row["examples"], strict=True)
        ]
    )
    below = "picked" if row.get("picks") else "came back"
    if rows.kind == "images":
        return _pictures(truth, found, rows.value_range, below, all(back))
    if rows.kind == "tokens":
        return _sequences(truth, found, rows, below, back)
    return (_known(row) if "columns" in row else "") + _values(truth, found, rows, below, back)


def _pictures(
    truth: torch.Tensor, found: torch.Tensor, value_range: tuple[float, float], below: str, whole: bool
) -> str:
    both = torch.stack([truth, found]) if truth.shape[1] in (1, 3) else torch.stack([truth, found])[:, :, :1]
    low, high = value_range
    pixels = (((both - low) / (high - low)).clamp(0, 1) * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()
    times = max(1, -(-_SIDE // pixels.shape[3]))
    pixels = pixels.repeat(times, axis=2).repeat(times, axis=3)
    lines = [np.concatenate([_framed(picture) for picture in line], axis=1) for line in pixels]
    address = _png(np.concatenate(lines))
    caption = say("true").html() + " / " + say(below).html()
    if not whole:
        caption += " " + say("white").html()
    return (
        f'<figure><img src="{address}" alt="true rows above, what the attacker has below">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _framed(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)


def _png(pixels: np.ndarray) -> str:
    """A ``data:`` address."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _known(row: Row) -> str:
    """In how many rows each column is known, the best known first."""
    images = row["images"]
    lines = "".join(
        f"<tr><td>{escape(name)}</td><td>{known} / {images}</td><td>{blind} / {images}</td></tr>"
        for name, known, blind in sorted(row["columns"], key=lambda each: each[2] - each[1])
    )
    head = "".join(f"<th>{say(name).html()}</th>" for name in ("column", "known", "known blind"))
    return f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>'


def _values(truth: torch.Tensor, found: torch.Tensor, rows: Rows, below: str, back: Sequence[bool]) -> str:
    columns = rows.columns[:_COLUMNS]
    head = "<th></th>" + "".join(f"<th>{escape(column.name)}</th>" for column in columns)
    lines = []
    for true, guess, came in zip(truth, found, back, strict=True):
        texts = [[column.shown(one) for column in columns] for one in (true, guess)]
        near = [
            bool((column.scored(true[None]) - column.scored(guess[None])).abs().max() <= 0.05)
            for column in columns
        ]
        lines.append(_line("true", texts[0], [False] * len(columns)))
        lines.append(_line(below, texts[1], near) if came else _nothing(below, len(columns)))
    more = len(rows.columns) - len(columns)
    note = f'<p class="note">{say("more columns", number=more).html()}</p>' if more else ""
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>{note}'


def _line(name: str, texts: Sequence[str], near: Sequence[bool]) -> str:
    cells = "".join(
        f'<td class="{"same" if same else ""}">{escape(text)}</td>'
        for text, same in zip(texts, near, strict=True)
    )
    return f"<tr><th>{say(name).html()}</th>{cells}</tr>"


def _nothing(name: str, cells: int) -> str:
    nothing = f'<td colspan="{cells}"><small>{say("nothing").html()}</small></td>'
    return f"<tr><th>{say(name).html()}</th>{nothing}</tr>"


def _sequences(truth: torch.Tensor, found: torch.Tensor, rows: Rows, below: str, back: Sequence[bool]) -> str:
    lines = []
    for true, guess, came in zip(truth, found, back, strict=True):
        own = [int(token) for token in true.tolist() if token != rows.padding]
        lines.append(_line("true", [" ".join(_word(token, rows) for token in own)], [False]))
        read = dict.fromkeys(int(token) for token in guess.round().tolist() if token != rows.padding)
        text = " ".join(_word(token, rows) for token in read)
        lines.append(_line(below, [text], [False]) if came else _nothing(below, 1))
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _word(token: int, rows: Rows) -> str:
    return rows.words[token] if 0 <= token < len(rows.words) else str(token)
