"""An audit from beginning to end: views, attackers, scores, report. Goes on where it was stopped."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.observation import Progress
from secretflow.ml.nn.fl.audit import report
from secretflow.ml.nn.fl.audit.attackers import ATTACKERS
from secretflow.ml.nn.fl.audit.attempt import Attacker, Attempt, Learned, OutOfTimeError
from secretflow.ml.nn.fl.audit.captured import class_numbers
from secretflow.ml.nn.fl.audit.finished import Finished, key_of
from secretflow.ml.nn.fl.audit.judging import SCORES, Judge, Row, chances
from secretflow.ml.nn.fl.audit.reasons import NO_TIME
from secretflow.ml.nn.fl.audit.rows import Rows
from secretflow.ml.nn.fl.audit.scenes import Scene, captured_scenes, scenes_of
from secretflow.ml.nn.fl.audit.settings import AuditSettings
from secretflow.ml.nn.fl.audit.shares import LEAST_SECONDS, Shares
from secretflow.ml.nn.fl.audit.split import Split, split
from secretflow.ml.nn.fl.audit.subject import Subject, Weights
from secretflow.ml.nn.fl.worker.capture_files import Capture, load_capture

_CHANGES_NOTHING = ("minutes", "show_rows")
"""Settings that leave what is measured as it is."""


def audit(
    model: Any,
    rows: Rows,
    settings: AuditSettings = AuditSettings(),  # noqa: B008 - frozen
    *,
    loss: str | None = None,
    weights: Weights | str | Path | None = None,
    captures: Sequence[Capture | str | Path] = (),
    public: Rows | None = None,
    out: str | Path = "leakage",
    verbose: bool = True,
) -> report.AuditReport:
    """Attacks what a training of a net uploads, and reports what came back.

    Args:
        model: see :class:`~.subject.Subject`, also for ``loss`` and ``weights``.
        rows: private rows. Some are attacked; unless ``public`` is given, half are the attacker's.
        settings: which views, how many rows, how long.
        loss: of the training.
        weights: that it starts from.
        captures: steps that a real training captured, or their folders; they are then attacked instead of
            uploads that are made here.
        public: rows that the attacker has, of the shape and classes of ``rows``, none of which is private.
        out: folder for ``report.html``, ``report.json`` and what is measured, which only its owner may read.
        verbose: shows progress.

    Returns:
        What came out.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a value is out of its range, or the parts do not belong together.

    Examples:
        >>> from secretflow.ml.nn.fl.audit import AuditSettings, audit, read_csv
        >>> rows = read_csv("patients.csv", label="died")
        >>> print(audit("net.py:net", rows, AuditSettings(batch_size=1)).answer())
    """
    _validate.instance("rows", rows, Rows, "Rows, as read_csv, read_images and read_arrays give them")
    _validate.instance("settings", settings, AuditSettings, "AuditSettings")
    steps = [each if isinstance(each, Capture) else load_capture(each) for each in captures]
    subject = Subject(model, rows, loss, weights, settings.seed)
    if steps:
        rows = _with_captured(rows, steps)
    dealt = split(rows, settings, sum(len(step.x) for step in steps), public)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if steps:
        scenes = list(captured_scenes(subject, steps, dealt.candidates))
    else:
        scenes = list(scenes_of(subject, dealt.candidates, dealt.attacked, settings))
    what = f"fewer for {len(dealt.candidates)} private rows, or more rows"
    _validate.check(bool(scenes), "batch_size", settings.batch_size, what)
    bench = _Bench(subject, dealt, settings, Finished(folder / "measured.jsonl"), verbose)
    content = bench.measure(scenes)
    return report.write(content, dealt, settings, folder)


def _with_captured(rows: Rows, captures: Sequence[Capture]) -> Rows:
    """Rows with those of captures in front."""
    x = torch.cat([*(capture.x.float() for capture in captures), rows.x])
    y = torch.cat([*(class_numbers(capture.y) for capture in captures), rows.y])
    low, high = float(x.min()), float(x.max())
    if rows.kind == "images":
        low, high = min(low, rows.value_range[0]), max(high, rows.value_range[1])
    return replace(rows, x=x, y=y, value_range=(low, high) if rows.kind == "images" else rows.value_range)


@dataclass(frozen=True)
class _Bench:
    """Where attackers are tried on scenes."""

    subject: Subject
    dealt: Split
    settings: AuditSettings
    finished: Finished
    verbose: bool

    def measure(self, scenes: Sequence[Scene]) -> dict[str, Any]:
        """Tries all attackers that fit; returns what the report needs."""
        judge = Judge(self.dealt.candidates, self.dealt.public, self.settings.seed)
        counts = torch.bincount(self.dealt.candidates.y)
        most_frequent = float(counts.max() / counts.sum())
        baselines: list[Row] = []
        blind: dict[str, Mapping[str, Row]] = {}
        for scene in scenes:
            blind[scene.name] = dict(judge.blind(scene))
            for name, row in blind[scene.name].items():
                baselines.append(
                    {"scene": scene.name, "baseline": name, **_without(row, "examples", "columns")}
                )
        tried = self._tried(list(self._cells(scenes)), judge)
        rows: list[Row] = []
        for row in tried:
            if "why" not in row:
                own = chances(row, blind[row["scene"]], most_frequent)
                rows.append({**row, **{f"chance_{score}": own[score] for score in SCORES}})
        numbers = torch.arange(self.dealt.attacked)
        return {
            "net": self.subject.name,
            "loss": self.subject.loss,
            "trained": self.subject.trained,
            "switched_off": list(self.subject.evaluating),
            "scenes": [scene.name for scene in scenes],
            "left_out": self._left_out(scenes),
            "classifier_accuracy": judge.classifier_accuracy(numbers),
            "most_frequent": most_frequent,
            "rows": rows,
            "baselines": baselines,
            "not_measured": [row for row in tried if "why" in row],
            "not_for_it": self._not_for_it(scenes),
        }

    def _tried(self, cells: Sequence[tuple[Scene, Attacker]], judge: Judge) -> list[Row]:
        """What each attacker comes to, or why it was not tried; searches short of time come again, last."""
        searching = sum(attacker.searches for _, attacker in cells)
        shares = Shares(self.settings.minutes, len(cells) - searching, searching)
        learned: dict[str, Learned] = {}
        with tqdm(total=len(cells), unit="attack", disable=not self.verbose) as bar:

            def progress(part: float) -> None:
                bar.set_postfix_str(f"{part:.0%}")

            def one(scene: Scene, attacker: Attacker, seconds: float) -> Row:
                bar.set_description(f"{attacker.name} on {scene.name}")
                bar.set_postfix_str("")
                return self._row(scene, attacker, judge, seconds, learned, progress)

            found: list[Row] = []
            for scene, attacker in cells:
                found.append(one(scene, attacker, shares.next(attacker.searches)))
                bar.update()
            late = [number for number, row in enumerate(found) if row.get("seconds_needed") is not None]
            for place, number in enumerate(late):
                seconds = shares.again(found[number]["seconds_needed"], len(late) - place)
                if seconds is not None:
                    found[number] = one(*cells[number], seconds)
        return found

    def _left_out(self, scenes: Sequence[Scene]) -> list[int]:
        """Numbers of parties for whose average there were too few rows."""
        if scenes[0].view == "capture":
            return []
        made = {scene.parties for scene in scenes}
        return [parties for parties in self.settings.parties if parties not in made]

    def _cells(self, scenes: Sequence[Scene]) -> Iterator[tuple[Scene, Attacker]]:
        """What is tried, in this order: whoever searches comes when all others are through."""
        for searches in (False, True):
            for attacker in ATTACKERS:
                for scene in scenes:
                    fits = attacker.unfit(self.dealt.candidates.kind, scene.rows_together) is None
                    if attacker.searches is searches and fits:
                        yield scene, attacker

    def _not_for_it(self, scenes: Sequence[Scene]) -> list[Row]:
        """Attackers that are for other rows or other views."""
        kind = self.dealt.candidates.kind
        return [
            {**_seen(scene), "attack": attacker.name, "why": why}
            for scene in scenes
            for attacker in ATTACKERS
            if (why := attacker.unfit(kind, scene.rows_together)) is not None
        ]

    def _row(
        self,
        scene: Scene,
        attacker: Attacker,
        judge: Judge,
        seconds: float,
        learned: dict[str, Learned],
        progress: Progress,
    ) -> Row:
        """What an attacker comes to; or "why" it was not tried."""
        key = self._key(scene, attacker)
        kept = self.finished.get(key)
        if kept is not None and (not kept["effort"] or kept["minutes"] >= self.settings.minutes):
            return kept
        refused = {**_seen(scene), "attack": attacker.name}
        attempt = Attempt(
            scene,
            self.dealt.candidates,
            self.dealt.public,
            seconds,
            self.settings.seed,
            progress,
            learned,
        )
        started = time.perf_counter()
        try:
            attacker.refuses(scene.observations[0])  # first: more time does not help whom a net does not suit
            if seconds < LEAST_SECONDS and attacker.searches:
                raise OutOfTimeError(None)
            findings = attacker.run(attempt)
        except OutOfTimeError as error:
            needed = None if error.needed is None else round(error.needed, 1)
            return {**refused, "why": NO_TIME, "seconds_needed": needed}
        except (ValueError, RuntimeError) as error:  # a net or scene that the attacker cannot take
            return {**refused, "why": str(error)}
        row = {
            **_seen(scene),
            "attack": attacker.name,
            "knowledge": "mask, net and public rows",
            "density": round(scene.density, 6),
            "bits": scene.bits,
            "local_steps": scene.local_steps,
            **judge.scored(findings, scene),
            "effort": dict(findings.effort),
            "minutes": self.settings.minutes,
            "seconds": round(time.perf_counter() - started, 1),
        }
        self.finished.add(key, row)
        return row

    def _key(self, scene: Scene, attacker: Attacker) -> str:
        settings = {n: v for n, v in asdict(self.settings).items() if n not in _CHANGES_NOTHING}
        seen = _digest(scene.observations[0].gradients)
        what = {"scene": scene.name, "attack": attacker.name, "loss": self.subject.loss}
        return key_of(settings, {**what, "data": self._data, "seen": seen})

    @cached_property
    def _data(self) -> str:
        """A name for weights and rows."""
        rows = (self.dealt.candidates.x, self.dealt.candidates.y, self.dealt.public.x)
        return _digest([*self.subject.weights.values(), *rows])


def _digest(tensors: Sequence[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _seen(scene: Scene) -> Row:
    """What is said of a view beside each attacker."""
    return {
        "scene": scene.name,
        "view": scene.view,
        "parties": scene.parties,
        "batch_size": scene.batch_size,
    }


def _without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}
