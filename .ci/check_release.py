"""The release checklist: builds a release into dist/ and says of each point whether it holds.

``python .ci/check_release.py`` in a clean checkout; exits with 1 if a point does not hold.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Prints a line for each point; returns the exit code."""
    failed = 0
    for what, problem in points():
        print(f"{'ok ' if not problem else 'NOT'}  {what}{f': {problem}' if problem else ''}")
        failed += bool(problem)
    return 1 if failed else 0


def points() -> Iterator[tuple[str, str]]:
    """Each point and what is wrong with it, empty if nothing is."""
    version = re.findall(r'^version = "(.+)"$', _text("pyproject.toml"), re.MULTILINE)[0]
    yield "the working tree is clean", _output("git", "status", "--porcelain")
    yield from changelog_points(_text("CHANGELOG.md"), version)
    tags = _output("git", "tag", "--points-at", "HEAD").split()
    yield "the commit has the tag of the version", "" if f"v{version}" in tags else f"tags are {tags}"
    _output(sys.executable, "-m", "build", "--outdir", str(ROOT / "dist"), str(ROOT))
    stem = f"secretflow_prune-{version}"
    yield from archive_points(ROOT / "dist" / f"{stem}.tar.gz", ROOT / "dist" / f"{stem}-py3-none-any.whl")


def changelog_points(changelog: str, version: str) -> Iterator[tuple[str, str]]:
    """Points about the changelog.

    Args:
        changelog: its text.
        version: to release.
    """
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE))
    named = [title for title in sections if title.split()[0].strip("[]") == version]
    yield "the changelog has the version", "" if named else f"no section {version}"
    left = sections.get("Unreleased", "").strip()
    yield (
        "nothing in it is unreleased",
        "" if not left else f"{len(left.splitlines())} lines under Unreleased",
    )


def archive_points(sdist: Path, wheel: Path) -> Iterator[tuple[str, str]]:
    """Points about what was built.

    Args:
        sdist: the source distribution.
        wheel: built from it.
    """
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    strange = [name for name in names if name.startswith(("tests/", ".ci/", "dgl/", ".venv"))]
    yield "the source distribution holds the package and no more", ", ".join(strange[:3])
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        required = re.findall(r"^Requires-Dist: (.+)$", archive.read(metadata).decode(), re.MULTILINE)
    folders = [line for line in required if " @ " in line]
    yield "the wheel requires nothing by its address", ", ".join(folders)


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
