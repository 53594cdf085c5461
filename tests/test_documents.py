"""What the documents name is there: tests beside a sentence, files behind a link."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TRANSLATED = [page for page in PAGES if page.with_suffix(".zh-CN.md").exists()]
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")):
        assert f"def {name}(" in TESTS, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_behind_links_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_translation_has_the_commands_and_names_the_tests_of_the_page(page: Path) -> None:
    original, translation = (
        path.read_text(encoding="utf-8") for path in (page, page.with_suffix(".zh-CN.md"))
    )
    for pattern in (r"^ *((?:python -m|make|pip) [^#\n]*)", r"`(test_\w+)`"):
        found = [re.findall(pattern, text, flags=re.MULTILINE) for text in (original, translation)]
        said, translated = ({one.strip() for one in names} for names in found)
        assert said == translated
