import json
from html import escape
from pathlib import Path

import pytest

from experiments import leakage_audit
from experiments.audit import answer, matrix, page
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


def test_the_answer_says_what_the_rows_say_whichever_way_it_comes_out():
    aware_wins = " ".join(
        answer.sentences(made_up(made_up_row(KNOWN, 0.5, 19, 20), made_up_row(WEIGHTS_ONLY, 0.5, 2, 20)))
    )
    equal = " ".join(answer.sentences(made_up(made_up_row(KNOWN, 0.5, 2), made_up_row(WEIGHTS_ONLY, 0.5, 2))))
    assert "in images identified at no rate that was tried (0 of 1 rates" in aware_wins
    assert "in images got back at 50 % living weights (1 of 1)" in aware_wins
    assert "in images got back at no rate that was tried (0 of 1)" in equal
    oblivious_wins = " ".join(answer.sentences(made_up(made_up_row(OBLIVIOUS, 0.05, 20))))
    assert "mask-oblivious, weights pruned: identifies images beyond chance at no rate" in oblivious_wins
    assert "gets back at least half of them at 95 % living weights" in oblivious_wins
    assert answer.sentences(made_up()) == []


def test_pictures_that_name_their_originals_leak_whatever_their_error():
    said = answer.sentences(made_up(made_up_row(KNOWN, 0.95, successes=0, identified=20)))
    assert "identifies images beyond chance at 5 % living weights" in said[0]
    assert "DLG (mask-aware) identifies 20 of 20 (84 to 100 %) and gets back 0 (0 to 16 %)" in said[0]
    said = answer.sentences(made_up(made_up_row(KNOWN, 0.95, successes=0, identified=1)))
    assert "no attacker tried identifies images beyond chance where weights are pruned" in said[0]


def test_the_worst_attacker_comes_first():
    rows = [
        made_up_row(KNOWN, 0.95, successes=3, identified=2),
        made_up_row(KNOWN, 0.95, successes=0, identified=17, attack="iDLG"),
    ]
    assert [line.attack for line in matrix.lines(rows)] == ["iDLG", "DLG"]
    assert matrix.markdown(rows, "MNIST").splitlines()[2] == "| iDLG | mask-aware | 17 / 0 |"
    assert "iDLG (mask-aware)" in answer.sentences(made_up(*rows))[0]


@pytest.mark.parametrize(("name", "chinese"), [("README.md", False), ("README.zh-CN.md", True)])
def test_the_readme_has_the_reports_figures(name, chinese):
    rows = json.loads((ROOT / "dgl" / "audit" / "report.json").read_text())["rows"]
    lines = [line.strip() for line in (ROOT / name).read_text().splitlines()]
    assert all(line in lines for line in matrix.markdown(rows, "MNIST", chinese).splitlines())


def test_the_committed_page_is_drawn_from_the_committed_figures():
    folder = ROOT / "dgl" / "audit"
    html = (folder / "report.html").read_text()
    content = json.loads((folder / "report.json").read_text())
    assert all(escape(sentence) in html for sentence in answer.sentences(content))


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
