"""What users see of each fault that a suite brings about, for the guide."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEAD = [
    "| who | fault | when | what the others see | after seconds | deadline |",
    "|---|---|---|---|---|---|",
]


class Table:
    """One row for each fault."""

    def __init__(self) -> None:
        self._rows: list[str] = []

    def add(self, who: str, fault: str, when: str, seen: str, after: float, deadline: float) -> None:
        self._rows.append(f"| {who} | {fault} | {when} | {seen} | {after:.1f} | {deadline:g} |")

    def write(self, page: Path, name: str) -> None:
        """Replaces the table between the two marks of a page."""
        begin, end = f"<!-- {name}: written by make test-faults -->", f"<!-- end of {name} -->"
        before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
        after = rest.partition(end)[2]
        table = "\n".join(["", "", *HEAD, *sorted(self._rows), "", ""])
        page.write_text(f"{before}{mark}{table}{end}{after}", encoding="utf-8")


@contextmanager
def faults_table(name: str) -> Iterator[Table]:
    """A table that is written to the page that FAULTS_TABLE names, if it names one.

    Args:
        name: in the marks of the page.
    """
    yield (table := Table())
    if page := os.environ.get("FAULTS_TABLE"):
        table.write(Path(page), name)
