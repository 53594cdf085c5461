"""The commands of the page on auditing one's own training run as printed, the same in both languages."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs/leakage-audit.md", ROOT / "docs/leakage-audit.zh-CN.md"]
BLOCK = re.compile(r"^```(\w+)(?: title=\"(\S+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks() -> list[tuple[str, str, str]]:
    english, chinese = (BLOCK.findall(page.read_text(encoding="utf-8")) for page in PAGES)
    assert english == chinese
    return english


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: a table with a column of texts, and pictures in folders."""
    from PIL import Image

    made = tmp_path_factory.mktemp("reader")
    data = load_breast_cancer(as_frame=True)
    rows = data.frame.iloc[:, :8].copy()
    rows["size"] = pandas.cut(rows.pop("mean radius"), 3, labels=["small", "medium", "large"])
    rows["died"] = np.where(data.target == 0, "yes", "no")
    rows.to_csv(made / "patients.csv", index=False)
    digits = load_digits()
    for number, (picture, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = made / "pictures" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 15.9).astype(np.uint8)).convert("RGB").save(place / f"{number}.png")
    for _, title, text in blocks():
        if title.endswith(".py"):
            (made / title).write_text(text, encoding="utf-8")
    return made


def run(folder: Path, *command: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", [text for kind, _, text in blocks() if kind == "bash"])
def test_a_command_of_the_page_ends_with_an_answer_and_a_report(folder: Path, command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "python"
    told = run(folder, *arguments).splitlines()
    assert told[0].startswith("Yes: from the upload of one party")
    assert told[2].startswith("Tried on the upload of one party")
    page = (folder / told[-1]).read_text(encoding="utf-8")
    assert told[0].split(",")[0] in page and "What was not measured" in page


@pytest.mark.slow
def test_the_ten_lines_of_the_page_print_an_answer(folder: Path) -> None:
    assert "'average of 8': 'leaks'" in run(folder, "audit.py")
