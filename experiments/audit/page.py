"""The report as one page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from experiments.audit.answer import percent_interval, sentences, worst_first
from experiments.audit.matrix import lines

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --ink: #1b1f24; --paper: #fff; --soft: #f4f6f8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #14171a; --soft: #1e2226 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.6rem; line-height: 1.2 } h2 { font-size: 1.2rem; margin-top: 2rem }
figure { margin: 1rem 0 }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px }
figcaption { font-size: .85rem; margin-top: .3rem }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px }
table { border-collapse: collapse; font-size: .85rem; width: 100% }
th, td { padding: .35rem .6rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap }
th { background: var(--soft); position: sticky; top: 0 } td.number { text-align: right }
.note { background: var(--soft); padding: .6rem .9rem; border-radius: 6px }
"""

_COLUMNS = {
    "data": "images",
    "attack": "attack",
    "view": "view",
    "defence": "defence",
    "level": "removed or noise",
    "density": "living",
    "knowledge": "attacker",
    "identified": "identified (95 % interval)",
    "candidates": "chance",
    "successes": "got back (95 % interval)",
    "median_mse": "MSE",
    "median_psnr_db": "PSNR (dB)",
    "median_ssim": "SSIM",
    "label_accuracy": "labels right",
    "failed_restarts": "failed restarts",
}

_ATTACKERS = (
    ("mask-oblivious", "has the unpruned weights and matches all coordinates of the gradient"),
    (
        "pruned weights, mask ignored",
        "has the pruned weights and matches all coordinates; beside the next one it shows what the mask does",
    ),
    ("mask-aware", "has the pruned weights and matches the coordinates that live"),
    ("mask inferred from zeros", "has the unpruned weights and takes the zeros of the upload for the mask"),
)

_LIMITS = (
    "No row is a guarantee. Stronger attackers than these are known and must be expected to succeed where "
    "these fail; none of them is measured here: a regression from the living coordinates to pixels, "
    "learned from public images; a prior of what such images look like, Gaussian or generative; for nets "
    "that begin with fully connected layers the exact inversion of their gradients, also from averages "
    "and batches.",
    "Averages are attacked with DLG on a convolutional net only. For a net that begins with a fully "
    "connected layer far more must be expected to come back, from the average of far more parties. Secure "
    "aggregation hides who sent what, not what was sent: the average is what these rows attack.",
    "Identified means: nearest to its own image among the candidates of the table, the first images of "
    "the same data. Among more candidates fewer are identified, and so does chance identify fewer; more "
    "than these were not tried. Whether a person recognises a picture is not scored.",
    "Nets are initialised at random (weights uniform in [-0.5, 0.5]) and use sigmoids, the case in which "
    "these attacks were first shown. Trained nets are not measured, nor batches of more than one image a "
    "party, nor the update of an adaptive optimiser.",
    "Each row attacks batches of one image unless the view is an aggregate. Labels of crops are drawn.",
    "The closed form is measured on a perceptron that starts with a fully connected layer, the other "
    "attacks on a LeNet. The closed form is not measured on averages, padded uploads, noise or sparse "
    "gradients.",
    "Accuracies come from a short training of the small net of the main job with a few seeds, not from "
    "the attacked net.",
    "Restarts, steps, patience, starts and the weight of the total variation were chosen on other images "
    "(from number 50 on) and other nets than those that are attacked here.",
    "The aggregates are of parties with one mask, so they are the gradient of all batches together; masks "
    "that differ are not measured here.",
    "Keys of padded uploads are drawn anew in every run, so their rows differ a little from run to run.",
)


def render(content: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The page.

    Args:
        content: of ``report.json``.
        pictures: caption and ``data:`` address of each picture.
    """
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in content["settings"].items())
    versions = ", ".join(f"{name} {value}" for name, value in content["versions"].items())
    missing = len(content["missing"])
    state = f'<p class="note">Not complete: {missing} rows are missing.</p>' if missing else ""
    attackers = "".join(f"<li><b>{escape(name)}</b> {escape(what)}.</li>" for name, what in _ATTACKERS)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Leakage audit</title>
<style>{_STYLE}</style></head><body>
<h1>Leakage audit</h1>{state}
<h2>Question</h2>
<p>What does an attacker who sees what a party of federated learning uploads get back of its training images,
and what do pruning, other defences and secure aggregation change about it?</p>
<h2>Method</h2>
<p>A party computes a gradient on one image. The attacker looks for an image that has the same gradient;
it never sees the true one, and of several random starts the one whose gradient matches best counts.
Weights are pruned once, by training's own step, every layer to the same rate. Two scores stand side by
side. An image is <b>identified</b> if what comes back is nearer to it than to all other candidates, and
chance would identify one in so many. It is <b>got back</b> if the mean squared error is below
{content["success_is_mse_below"]:g} on pixels in [0, 1], fixed beforehand. A picture that is not got back
can still be identified, and that is a leak: only where neither score is above chance has an attack
failed, and only that attack. Rows of one data set have the same images and starts, and each image has
its own net. Attackers differ in what they know:</p>
<ul>{attackers}</ul>
<h2>Answer</h2>
<ul>{"".join(f"<li>{escape(sentence)}</li>" for sentence in sentences(content))}</ul>
<h2>Figures</h2>
<div class="figures">{"".join(_figure(caption, address) for caption, address in pictures.items())}</div>
<h2>Images identified / got back, by living weights</h2>
<p>Worst attacker first; below, the 95 % intervals of both.</p>
<div class="wide">{_matrix(content["rows"])}</div>
<h2>All rows</h2>
<p>Medians over images. The last rows are attackers who see nothing.</p>
<div class="wide">{_table(content)}</div>
<h2>Accuracy under each defence</h2>
<div class="wide">{_accuracies(content)}</div>
<h2>Limits</h2>
<ul>{"".join(f"<li>{escape(limit)}</li>" for limit in _LIMITS)}</ul>
<h2>Settings</h2>
<p>{escape(settings)}. {escape(versions)}.</p>
</body></html>
"""


def _figure(caption: str, address: str) -> str:
    text = escape(caption)
    return f'<figure><img src="{address}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def _matrix(rows: Sequence[Mapping[str, Any]]) -> str:
    """Attackers on a pruned party's gradient, one line each, beside the densities."""
    found = lines(rows)
    levels = sorted({level for line in found for level in line.rows})
    head = "".join(f"<th>{100 * (1 - level):.3g} %</th>" for level in levels)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(part)}</td>' for part in (line.data, line.attack, line.knowledge))}"
        f"{''.join(f'<td>{_scores(line.rows.get(level))}</td>' for level in levels)}</tr>"
        for line in found
    )
    names = "<th>images</th><th>attack</th><th>attacker</th>"
    return f"<table><thead><tr>{names}{head}</tr></thead><tbody>{body}</tbody></table>"


def _scores(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "\u2013"
    counts = row["identified"], row["successes"]
    intervals = ", ".join(percent_interval(count, row["images"]) for count in counts)
    return f"{counts[0]} / {counts[1]} of {row['images']}<br><small>{intervals}</small>"


def _table(content: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in _COLUMNS.values())
    blind = [
        {**row, "attack": row["baseline"], "view": "nothing", "defence": "", "knowledge": ""}
        for row in content["baselines"]
    ]
    rows = sorted(content["rows"], key=_order)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in [*rows, *blind])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["data"], row["view"], row["defence"], row["level"], *worst_first(row)


def _cells(row: Mapping[str, Any]) -> str:
    found = []
    for name in _COLUMNS:
        value = row.get(name, "")
        if name in ("identified", "successes"):
            text = f"{value} of {row['images']} ({percent_interval(value, row['images'])})"
        elif name == "candidates":
            text = f"1 in {value}"
        elif value is None:
            text = "none"
        else:
            text = f"{value:.3g}" if isinstance(value, float) else str(value)
        kind = "" if isinstance(value, str) else ' class="number"'
        found.append(f"<td{kind}>{escape(text)}</td>")
    return "".join(found)


def _accuracies(content: Mapping[str, Any]) -> str:
    body = "".join(
        f'<tr><td>{escape(row["defence"])}</td><td class="number">{row["level"]:g}</td>'
        f'<td class="number">{100 * row["accuracy"]:.1f} %</td>'
        f'<td class="number">{100 * min(row["accuracies"]):.1f} to '
        f"{100 * max(row['accuracies']):.1f} %</td></tr>"
        for row in content["accuracies"]
    )
    head = "<tr><th>defence</th><th>removed or noise</th><th>mean test accuracy</th><th>over seeds</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
