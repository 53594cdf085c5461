"""The page on the architecture names what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "secretflow").rglob("*.py"))
MOST_LINES = 300


def definitions() -> set[str]:
    """Names of all classes, functions, and methods as ``Class.method``, of the overlay."""
    found: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found |= {
                    f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)
                }
                found.add(node.name)
            elif isinstance(node, ast.FunctionDef):
                found.add(node.name)
    return found


def test_the_page_names_only_what_the_code_has() -> None:
    named = set(re.findall(r"\b[A-Z][A-Za-z]+\.[a-z_]+\b", PAGE))
    named |= set(re.findall(r"`([a-z]+_[a-z_]+)`", PAGE))
    settings = {"mask_scope", "min_survivors", "needs_model_each_round", "prune_structure", "rounds_at_once"}
    assert named - definitions() - settings == {"FLModel.fit"} - definitions()


def test_the_files_that_the_page_names_exist() -> None:
    for name in re.findall(r"`([\w/]+\.py)`", PAGE):
        assert any(str(path).endswith(name) for path in (*SOURCES, *(ROOT / "tests").rglob("*.py"))), name


@pytest.mark.parametrize("folder", ["secretflow", "experiments"])
def test_no_module_holds_two_things(folder: str) -> None:
    """A long module is a sign that two things live together."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert not long
