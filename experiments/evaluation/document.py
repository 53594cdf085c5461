"""``training.md``: tables, targets and what was run, written from the rows."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from experiments.evaluation.grid import DENSITIES, FULL, REDUCED, SEEDS, Recipe, grid
from experiments.evaluation.pictures import draw_accuracy_over_bytes, draw_accuracy_over_rate, title_of
from experiments.evaluation.results import Row, case_of
from experiments.evaluation.verdicts import (
    MISSED,
    STALLED_POINTS,
    Summary,
    Verdict,
    groups,
    stalled_seeds,
    summaries,
    verdicts,
    with_targets,
)
from secretflow._atomic import write_text

DOCUMENT = "training.md"
DENSITY_PICTURE = "training_accuracy_over_density.png"
BYTES_PICTURE = "training_accuracy_over_upload.png"

_MEGABYTE = 1e6
_WHOLE = 60_000  # training rows of MNIST and of Fashion-MNIST

_HEAD = """# Pruned training: accuracy and upload

Written by `make evaluate` from `training.json`, which has one row a run. Every run is the real `FLModel`
with all parties in one process (SecretFlow's debug mode). Dense is `fed_avg_w` with `PlainAggregator`;
local and global are the mask scopes of `fed_avg_w_prune` with `SecurePruneAggregator`, cubic schedule, one
threshold over all layers. The dense and the pruned runs of a table have the same rows, split, epochs,
optimiser and seeds.

- **accuracy**: of the models that the parties hold after the last epoch, on test rows dealt out evenly among
  them; mean and sample deviation over the seeds, in percent.
- **loss**: points below the dense runs of the same seeds; among the targets with the sample deviation of
  that difference over the seeds.
- **upload**: of one party, over all rounds of training, in millions of bytes; the one average of the initial
  weights before them is left out on both sides. Pruned: measured, ring elements and masks that it sent,
  message headers not counted. Dense: computed, 4 bytes a parameter in each round.
- **upload to target**: of one party until the validation accuracy first reached the dense run's final one
  minus 1 point (same seed), looked at after each epoch.
- **seconds**: of one core, for training and validation of all parties one after the other, so no measure of
  a network.
"""


def write_document(rows: Sequence[Row], folder: Path) -> None:
    """Writes the document and its pictures.

    Args:
        rows: of all runs, at least one.
        folder: where they go.
    """
    draw_accuracy_over_rate(rows, folder / DENSITY_PICTURE)
    draw_accuracy_over_bytes(rows, folder / BYTES_PICTURE)
    write_text(folder / DOCUMENT, document(rows))


def document(rows: Sequence[Row]) -> str:
    """The document's text.

    Args:
        rows: of all runs.
    """
    judged = verdicts(rows)
    parts = [
        _HEAD,
        "## Targets (MNIST, IID, two parties)\n",
        _target_table(judged),
        *_stalled(rows),
        *_why_missed(judged),
        f"## Pictures\n\n![Accuracy over the density]({DENSITY_PICTURE})\n\n"
        f"![Accuracy over the upload of a party]({BYTES_PICTURE})\n",
        "## What was run\n",
        _coverage(rows),
        "## Tables\n",
    ]
    for key, group in groups(rows).items():
        parts.extend([f"### {title_of(key)}\n", _summary_table(summaries(group))])
    return "\n".join(parts)


def _target_table(judged: Iterable[Verdict]) -> str:
    head = ["model", "density", "target", "mask scope", "measured", "seeds", "outcome"]
    lines = [
        [
            verdict.target.model,
            f"{verdict.target.density:g}",
            str(verdict.target),
            verdict.method,
            verdict.measured,
            str(len(verdict.pruned.rows) if verdict.pruned else 0),
            f"**{verdict.outcome}**",
        ]
        for verdict in judged
    ]
    return _table(head, lines)


def _stalled(rows: Sequence[Row]) -> list[str]:
    lines = [
        f"- {title_of(key)}: seed {seed}, at {accuracy:.2f} %"
        for key, group in groups(with_targets(rows)).items()
        for seed, accuracy in stalled_seeds(group).items()
    ]
    if not lines:
        return []
    return [
        f"Dense runs that stalled, more than {STALLED_POINTS:g} points below the best seed of their table:\n",
        *lines,
        "\nThe targets do not count these seeds, for beside such a run any pruning looks good; the tables\n"
        "below do. The ConvNet ends in a softmax and its loss applies another, so with some initial\n"
        "weights it does not learn one or two of the digits for many epochs, pruned or not.\n",
    ]


def _why_missed(judged: Iterable[Verdict]) -> list[str]:
    """What is known of the reasons, where a target was missed."""
    missed = [verdict for verdict in judged if verdict.outcome == MISSED]
    reasons = [
        f"- {verdict.target.model}, {verdict.target.density:g} living, {verdict.method}: {_reason(verdict)}\n"
        for verdict in missed
    ]
    return ["Why targets were missed:\n", "".join(reasons)] if reasons else []


def _reason(verdict: Verdict) -> str:
    if verdict.pruned is None or verdict.pruned.loss is None:
        raise ValueError(f"verdict must be one of a target that was measured, got {verdict!r}")
    if verdict.target.within is not None:
        deviation = verdict.pruned.deviation
        return (
            f"{verdict.pruned.loss - verdict.target.within:.2f} points too far below dense, on "
            f"{verdict.pruned.rows[0]['rows']:,} of {_WHOLE:,} rows"
            + ("." if deviation is None else f"; the seeds deviate by {deviation:.2f} points.")
        )
    if verdict.pruned.to_target is None:
        return "not every run comes within 1 point of dense, at whatever upload."
    epochs = verdict.pruned.rows[0]["prune_end_epoch"]
    falling = statistics.mean(row["curve"][epochs - 1][1] for row in verdict.pruned.rows)
    return (
        f"while the density falls, in the first {epochs} epochs, a party uploads as much as "
        f"{falling / verdict.pruned.to_target:.0%} of the upload to the target."
    )


def _coverage(rows: Sequence[Row]) -> str:
    head = ["group", "runs", "of", "rows", "epochs", "densities", "seeds"]
    lines = []
    for key, group in groups(rows).items():
        dataset, split, parties, model, count, epochs, *_ = key
        lines.append(
            [
                f"{dataset}, {split}, {parties} parties, {model}",
                str(len(group)),
                str(len(grid([dataset], [split], [parties], [model]))),
                "all 60,000" if count == _WHOLE else f"{count:,} of 60,000",
                str(epochs),
                ", ".join(f"{rate:g}" for rate in sorted({row["density"] for row in group}, reverse=True)),
                ", ".join(str(seed) for seed in sorted({row["seed"] for row in group})),
            ]
        )
    rates = ", ".join(f"{rate:g}" for rate in DENSITIES)
    done = len({case_of(row) for row in rows})  # some with several recipes
    missing = " `make evaluate` goes on with the missing ones." if done < len(grid()) else ""
    return (
        f"The whole grid is {len(grid())} runs (densities 1, {rates}; "
        f"seeds {', '.join(map(str, SEEDS))}); {done} have been\nrun."
        f"{missing}\n\n{_table(head, lines)}\n"
        f"Recipes, the same for dense and pruned:\n\n{_recipe_table()}"
    )


def _recipe_table() -> str:
    names = [field.name for field in fields(Recipe)]
    lines = [
        [model, cases, *(f"{getattr(recipe, name)}" for name in names)]
        for cases, recipes in (("MNIST, IID, 2 parties", FULL), ("all others, reduced", REDUCED))
        for model, recipe in recipes.items()
    ]
    return _table(["model", "cases", *(name.replace("_", " ") for name in names)], lines)


def _summary_table(found: Iterable[Summary]) -> str:
    head = ["method", "living", "seeds", "accuracy %", "loss", "upload MB", "upload to target MB", "seconds"]
    return _table(head, [_summary_line(summary) for summary in found])


def _summary_line(summary: Summary) -> list[str]:
    seeds = len(summary.rows)
    deviation = "" if summary.deviation is None else f" ± {summary.deviation:.2f}"
    to_target = f"reached by {summary.reached} of {seeds}"
    if summary.to_target is not None:
        to_target = _megabytes(summary.to_target)
    return [
        summary.method,
        f"{summary.density:g}",
        str(seeds),
        f"{summary.accuracy:.2f}{deviation}",
        "-" if summary.loss is None else f"{summary.loss:.2f}",
        _megabytes(summary.bytes),
        to_target,
        f"{summary.seconds:.0f}",
    ]


def _megabytes(size: float) -> str:
    return f"{size / _MEGABYTE:.3g}" if size < 1000 * _MEGABYTE else f"{size / _MEGABYTE:.0f}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines]) + "\n"
