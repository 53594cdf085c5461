"""The files of the audit's report.

``python -m experiments.audit.report dgl/audit`` draws the plots and writes the page anew from the figures
that are there; nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.audit import figures, page
from secretflow._atomic import write_text

FIGURES, EXAMPLES, PAGE = "report.json", "examples.json", "report.html"

Row = Mapping[str, Any]


def write(content: Mapping[str, Any], rows: Sequence[Row], out: Path) -> None:
    """Writes figures, examples, plots and page.

    Args:
        content: of ``report.json``.
        rows: of attacks, with their examples.
        out: folder to write to.
    """
    examples = figures.sheet_rows(rows)
    write_text(out / FIGURES, json.dumps(content, indent=1) + "\n")
    write_text(out / EXAMPLES, json.dumps(examples, indent=1) + "\n")
    _draw(content, examples, out)


def _draw(content: Mapping[str, Any], examples: Sequence[Row], out: Path) -> None:
    write_text(out / PAGE, page.render(content, figures.draw_all(content, examples, out)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws a report anew.

    Args:
        arguments: the command line without the program's name; None is ``sys.argv``.
    """
    parser = argparse.ArgumentParser(description="Draws the plots and the page of a finished audit anew.")
    parser.add_argument("folder", type=Path, help="where report.json and examples.json are")
    out = parser.parse_args(arguments).folder
    try:
        content, examples = (
            json.loads((out / name).read_text(encoding="utf-8")) for name in (FIGURES, EXAMPLES)
        )
    except (OSError, ValueError) as error:
        parser.error(f"folder must hold {FIGURES} and {EXAMPLES} of an audit ({error})")
    _draw(content, examples, out)
    print(f"Done: {out / PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
