"""The files of an audit: ``report.json`` with the counts, ``report.html`` to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from secretflow import _validate
from secretflow._atomic import PRIVATE, write_text
from secretflow.ml.nn.fl.audit import page
from secretflow.ml.nn.fl.audit.answer import answer, by_scene, tried
from secretflow.ml.nn.fl.audit.finished import finite
from secretflow.ml.nn.fl.audit.judging import Row, verdict
from secretflow.ml.nn.fl.audit.settings import AuditSettings
from secretflow.ml.nn.fl.audit.split import Split
from secretflow.ml.nn.fl.audit.words import LANGUAGES


@dataclass(frozen=True)
class AuditReport:
    """What came out of an audit.

    Attributes:
        content: of ``report.json``: counts, intervals and chances, and no private row.
        folder: where the files are.
    """

    content: Mapping[str, Any]
    folder: Path

    @property
    def rows(self) -> list[Row]:
        """What each attacker came to on each view."""
        return list(self.content["rows"])

    @property
    def html(self) -> Path:
        """The page to read."""
        return self.folder / "report.html"

    def answer(self, language: str = "en") -> str:
        """The two sentences that the page begins with.

        Args:
            language: "en" or "zh".
        """
        _validate.one_of("language", language, LANGUAGES)
        return "\n".join(getattr(sentence, language) for sentence in answer(self.content))

    def tried(self, language: str = "en") -> str:
        """Which attackers were tried on each view, and why the others were not, a line each.

        Args:
            language: "en" or "zh".
        """
        _validate.one_of("language", language, LANGUAGES)
        return "\n".join(getattr(sentence, language) for sentence in tried(self.content))

    def verdicts(self) -> dict[str, str]:
        """By view "leaks", "undecided" or "chance": no better than guessing on all three scores."""
        return {name: verdict(rows) for name, rows in by_scene(self.content).items()}


def write(content: dict[str, Any], dealt: Split, settings: AuditSettings, folder: Path) -> AuditReport:
    """Writes both files, which only their owner may read.

    Args:
        content: what was measured.
        dealt: the rows, for the page.
        settings: of the audit.
        folder: where to.

    Returns:
        The report.
    """
    content = {
        **content,
        "settings": asdict(settings),
        "kind": dealt.candidates.kind,
        "attacked": dealt.attacked,
        "candidates": len(dealt.candidates),
        "public": len(dealt.public.x),
        "doubles": dealt.doubles,
    }
    shown = [row for row in content["rows"] if "examples" in row]
    counts = [{name: value for name, value in row.items() if name != "examples"} for row in content["rows"]]
    plain: dict[str, Any] = finite({**content, "rows": counts})
    write_text(folder / "report.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n", PRIVATE)
    examples = shown if settings.show_rows else []
    write_text(folder / "report.html", page.render(plain, examples, dealt.candidates), PRIVATE)
    return AuditReport(plain, folder)
