"""The plots of the audit, as files and for the page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from experiments.audit.cells import INFERRED, KNOWN, OBLIVIOUS, PRUNING, SECURE, WEIGHTS_ONLY
from experiments.audit.scoring import SHOWN
from experiments.audit.words import CONTACT_SHEET, curves_of, said
from secretflow.ml.nn.fl.audit.intervals import wilson_interval
from secretflow.ml.nn.fl.audit.words import Said

matplotlib.use("Agg")  # files only, no window

from matplotlib import pyplot as plt

Row = Mapping[str, Any]

_DPI = 130
_MARKERS = {KNOWN: "o", INFERRED: "s", WEIGHTS_ONLY: "^", OBLIVIOUS: "x"}
_COLORS = {KNOWN: "#0b6e4f", INFERRED: "#3d7fc4", WEIGHTS_ONLY: "#d98324", OBLIVIOUS: "#b3262e"}
_SHEET_LEVELS = (0.0, 0.05, 0.5, 0.9, 0.95, 0.99)


def draw_all(content: Mapping[str, Any], examples: Sequence[Row], out: Path) -> dict[Said, str]:
    """Draws what the rows allow.

    Args:
        content: of ``report.json``.
        examples: rows with their first images and reconstructions, see :func:`sheet_rows`.
        out: folder to write to.

    Returns:
        Caption and picture of each file, as a ``data:`` address of a PNG.
    """
    rows = content["rows"]
    pictures: dict[Said, str] = {}
    for data, attack in dict.fromkeys((row["data"], row["attack"]) for row in rows):
        pruned = [r for r in rows if (r["data"], r["attack"]) == (data, attack) and _is_pruned_gradient(r)]
        if len({row["level"] for row in pruned}) > 1:
            caption = curves_of(said(attack), said(data))
            curves = success_curves(pruned, caption.en)
            pictures[caption] = _save(curves, out / f"success_{_slug(attack, data)}.png")
    if examples:
        pictures[CONTACT_SHEET] = _save(_contact_sheet(examples), out / "contact_sheet.png")
    return pictures


def _is_pruned_gradient(row: Row) -> bool:
    return row["view"] == "gradient" and row["defence"] == PRUNING


def _slug(*names: str) -> str:
    return "_".join(names).lower().replace(" ", "_").replace("-", "")


def success_curves(rows: Sequence[Row], title: str) -> Any:
    """A figure of the images identified and got back through pruning.

    Args:
        rows: of one attack on the gradients of one data set.
        title: above.
    """
    candidates = rows[0]["candidates"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.6), layout="constrained", sharey=True)
    _curves(left, rows, "identified")
    left.axhline(100 / candidates, color="0.4", linestyle=":", linewidth=1, label="chance")
    left.set_title(f"identified: nearest of {candidates:,} candidates", fontsize=9)
    left.set_ylabel("Images (%)")
    figure.legend(*left.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=5)
    _curves(right, rows, "successes")
    right.set_title("got back: MSE < 0.01", fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def _curves(axes: Any, rows: Sequence[Row], score: str) -> None:
    """Part of the images over living weights, one line for each kind of attacker."""
    knowledges = [knowledge for knowledge in _MARKERS if any(r["knowledge"] == knowledge for r in rows)]
    for place, knowledge in enumerate(knowledges):
        line = sorted(
            (row for row in rows if row["knowledge"] == knowledge or not row["level"]),
            key=lambda row: row["density"],
        )
        rates = np.array([row[score] / row["images"] for row in line])
        low, high = np.array([wilson_interval(row[score], row["images"]) for row in line]).T
        # A little beside each other, or the intervals would hide one another.
        living = np.array([100 * row["density"] for row in line]) * (1 + 0.02 * (place - 1))
        errors = [np.maximum(rates - low, 0) * 100, np.maximum(high - rates, 0) * 100]
        axes.errorbar(
            living,
            100 * rates,
            yerr=errors,
            marker=_MARKERS[knowledge],
            color=_COLORS[knowledge],
            capsize=2.5,
            linewidth=1.4,
            label=knowledge,
        )
    axes.set_xscale("log")
    ticks = sorted({round(100 * row["density"], 1) for row in rows})
    shown = [tick for tick in ticks if tick <= 50 or tick == 100]  # others would touch each other
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.set_xlabel("Living weights (%)")
    axes.set_ylim(-4, 104)
    axes.grid(alpha=0.3)


def sheet_rows(rows: Sequence[Row]) -> list[Row]:
    """Those of the contact sheet: what knowing the mask brings, and what is left of a padded upload.

    Args:
        rows: of attacks, with their examples.
    """
    with_dlg = {row["data"] for row in rows if row["attack"] == "DLG" and row["knowledge"] == OBLIVIOUS}
    chosen = [
        row
        for row in rows
        if row["attack"] == ("DLG" if row["data"] in with_dlg else "iDLG")
        and row["level"] in _SHEET_LEVELS
        and (
            row["defence"] == SECURE or (_is_pruned_gradient(row) and row["knowledge"] in (KNOWN, OBLIVIOUS))
        )
    ]
    order = {PRUNING: 0, SECURE: 1}
    return sorted(
        chosen, key=lambda row: (row["data"], order[row["defence"]], row["level"], row["knowledge"])
    )


def _contact_sheet(rows: Sequence[Row]) -> Any:
    shown = SHOWN
    figure, places = plt.subplots(
        len(rows),
        3 * shown,
        figsize=(1.05 * 3 * shown, 1.32 * len(rows) + 0.3),
        layout="constrained",
        squeeze=False,
    )
    for axes in places.flat:
        axes.axis("off")
    for line, row in enumerate(rows):
        for number, (true, found) in enumerate(row["examples"][:shown]):
            true, found = (_pixels(text, row["example_shape"]) for text in (true, found))
            difference = np.abs(true.astype(int) - found).astype(np.uint8)
            for kind, image in enumerate((true, found, difference)):
                _show(places[line, 3 * number + kind], image)
            if line == 0:
                for kind, name in enumerate(("true", "found", "difference")):
                    places[0, 3 * number + kind].set_title(name, fontsize=7)
        what = f"{100 * row['density']:.0f} % living, {row['knowledge'] if row['level'] else 'undefended'}"
        if row["defence"] == SECURE:
            what = "padded upload"
        title = places[line, 0].text(
            0,
            -0.04,
            f"{row['data']}, {row['attack']}, {what}: identified {row['identified']}, "
            f"got back {row['successes']} of {row['images']}",
            transform=places[line, 0].transAxes,
            fontsize=8,
            va="top",
        )
        title.set_in_layout(False)  # else it would widen the first column
    return figure


def _pixels(text: str, shape: Sequence[int]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)


def _show(axes: Any, image: np.ndarray) -> None:
    axes.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255)


def _save(figure: Any, path: Path) -> str:
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
