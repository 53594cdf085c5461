import json
from html import escape
from pathlib import Path

import pytest

from experiments import leakage_audit
from experiments.audit import answer, page, strongest
from experiments.audit.cells import (
    KNOWN,
    OBLIVIOUS,
    PRUNING,
    WEIGHTS_ONLY,
    Cell,
)

ROOT = Path(leakage_audit.__file__).parents[1]


def made_up_row(knowledge, level, successes, identified=0, attack="DLG"):
    return {
        **Cell("MNIST", attack, "gradient", PRUNING, level, knowledge).as_dict(),
        "density": 1 - level,
        "images": 20,
        "identified": identified,
        "candidates": 100,
        "successes": successes,
        "median_mse": 0.1,
    }


def made_up(*rows):
    return {"rows": list(rows), "baselines": [], "accuracies": []}


def english(*rows):
    return [sentence.en for sentence in answer.sentences(made_up(*rows))]


def test_the_answer_names_the_strongest_attacker_whichever_it_is():
    (aware,) = english(made_up_row(KNOWN, 0.5, 19, 20), made_up_row(WEIGHTS_ONLY, 0.5, 2, 3))
    assert "at 50 % living weights, DLG (mask-aware) identifies 20 of 20 (84 to 100 %)" in aware
    (oblivious,) = english(made_up_row(KNOWN, 0.05, 0), made_up_row(OBLIVIOUS, 0.05, 20, 20))
    assert "at 95 % living weights, DLG (mask-oblivious) identifies 20 of 20" in oblivious
    assert english() == []


def test_pictures_that_name_their_originals_leak_whatever_their_error():
    (said,) = english(made_up_row(KNOWN, 0.95, successes=0, identified=20))
    assert "identifies images beyond chance at 1 of 1 rates of pruning" in said
    assert "identifies 20 of 20 (84 to 100 %) and gets back 0 of 20 (0 to 16 %)" in said
    (said,) = english(made_up_row(KNOWN, 0.95, successes=0, identified=1))
    assert "no attacker tried identifies images beyond chance where weights are pruned" in said


def test_the_worst_attacker_comes_first():
    rows = [
        made_up_row(KNOWN, 0.95, successes=3, identified=2),
        made_up_row(KNOWN, 0.95, successes=0, identified=17, attack="iDLG"),
    ]
    assert "iDLG (mask-aware)" in english(*rows)[0]


@pytest.mark.parametrize(("name", "chinese"), [("README.md", False), ("README.zh-CN.md", True)])
def test_the_readme_has_the_reports_figures(name, chinese):
    rows = json.loads((ROOT / strongest.LEAKAGE).read_text())["rows"]
    lines = [line.strip() for line in (ROOT / name).read_text().splitlines()]
    assert all(line in lines for line in strongest.table(rows, chinese).splitlines())


def test_the_table_has_the_strongest_attacker_of_each_line_and_says_what_was_not_tried():
    setting, words = next(strongest.seen())
    others = [
        {"setting": name, "attack": "candidates", "images": 10, "successes": None, "identified": 1}
        for name, _ in strongest.seen()
    ]
    own = [
        {"setting": f"{setting}{who}", "attack": attack, "images": images, "successes": most, "identified": 7}
        for who, attack, images, most in (
            (", learned", "ridge regression", 100, 30),
            (", prior", "Gaussian prior", 20, 10),
        )
    ]
    lines = strongest.table([*own, *others[1:]]).splitlines()
    assert lines[2] == f"| {words.en} | 10 of 20 (Gaussian prior) | 7 of 20 (Gaussian prior) |"
    assert lines[3].endswith("| not tried | 1 of 10 (candidates) |")
    with pytest.raises(ValueError, match="must have the setting"):
        strongest.table(others[1:])


def test_the_committed_page_is_drawn_from_the_committed_figures():
    folder = ROOT / "dgl" / "audit"
    html = (folder / "report.html").read_text()
    content = json.loads((folder / "report.json").read_text())
    for sentence in answer.sentences(content):
        assert escape(sentence.en) in html and escape(sentence.zh) in html


def test_names_on_the_page_cannot_break_it():
    row = {**made_up_row(KNOWN, 0.5, 1), "attack": "<script>"}
    content = {
        **made_up(row),
        "settings": {},
        "versions": {},
        "missing": [],
        "success_is_mse_below": 0.01,
    }
    assert "<script>" not in page.render(content, {})
