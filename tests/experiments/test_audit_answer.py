import json
from html import escape
from itertools import pairwise
from pathlib import Path

import pytest

from experiments import leakage_audit
from experiments.audit import answer, figures, page, strongest, words
from experiments.audit.cells import (
    INFERRED,
    KNOWN,
    NOTHING,
    OBLIVIOUS,
    PADDED,
    PRUNING,
    REMOVED,
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


def test_what_is_identified_without_seeing_anything_is_chance():
    content = made_up(made_up_row(KNOWN, 0.95, successes=0, identified=4))
    assert "at 1 of 1 rates of pruning" in answer.sentences(content)[0].en
    blind = {"data": "MNIST", "baseline": "mean image", "images": 20, "candidates": 100, "successes": 0}
    content["baselines"] = [{**blind, "identified": 3, "median_mse": 0.1}]
    assert "no attacker tried identifies images beyond chance" in answer.sentences(content)[0].en
    html = page.render({**content, "settings": {}, "versions": {}, "missing": []}, {})
    assert "chance 15 %" in html and 'class="leaks"' not in html


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


def test_no_label_of_the_curves_touches_another_and_the_legend_hides_none_of_them():
    rows = [made_up_row(KNOWN, level, 10, 20) for level in REMOVED]
    rows += [made_up_row(who, level, 1, 2) for who in (INFERRED, WEIGHTS_ONLY, OBLIVIOUS) for level in (0.5,)]
    figure = figures.success_curves(
        rows, "DLG on MNIST: images identified and got back, against living weights"
    )
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "chance",
        KNOWN,
        INFERRED,
        WEIGHTS_ONLY,
        OBLIVIOUS,
    ]
    for axes in figure.axes:
        assert not legend.get_window_extent().overlaps(axes.get_tightbbox())
        places = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(one.x1 + 2 < other.x0 for one, other in pairwise(places))


def test_captions_and_steps_are_said_in_both_languages_and_in_good_grammar():
    html = page.render(
        {**made_up(), "settings": {}, "versions": {}, "missing": []},
        {words.curves_of(words.said("closed form"), words.said("MNIST")): "data:image/png;base64,"},
    )
    assert "closed form on MNIST: images identified" in html and "\u95ed\u5f0f\uff0cMNIST" in html
    assert words.said("update k=1").en == "update of 1 local step"
    assert words.said("update k=5").en == "update of 5 local steps"


def test_of_attackers_that_get_as_much_back_the_page_names_the_one_that_identifies_most():
    content = {
        **made_up(made_up_row(OBLIVIOUS, 0.95, 0, 0), made_up_row(KNOWN, 0.95, 0, 20)),
        **{"settings": {}, "versions": {}, "missing": []},
    }
    views = page.render(content, {}).partition("By view")[2].partition("All rows")[0]
    assert views.count("DLG (mask-aware)") == 2 and "mask-oblivious" not in views


def test_the_sentences_that_quote_the_report_have_its_figures():
    content = json.loads((ROOT / "dgl/audit/report.json").read_text())
    assert content["complete"]
    rows = {(row["attack"], row["view"], row["level"], row["knowledge"]): row for row in content["rows"]}
    dlg = rows["DLG", "gradient", 0.95, KNOWN]
    padded = [rows[attack, PADDED, 0.0, NOTHING] for attack in ("DLG", "iDLG", "Inverting Gradients")]
    back, found, images = (dlg[name] for name in ("successes", "identified", "images"))
    chance, candidates = f"{padded[0]['images'] / padded[0]['candidates']:g}", f"{dlg['candidates']:,}"
    assert back == sum(row["successes"] + row["identified"] for row in padded) == 0  # the sentences say none
    english, chinese, leakage = (
        " ".join((ROOT / name).read_text(encoding="utf-8").split())
        for name in ("README.md", "README.zh-CN.md", "docs/results/leakage.md")
    )
    assert f"DLG gets back 0 of {images} images at 5 % living, and identifies {found} of them" in english
    assert f"of them among {candidates} (`make audit`" in english
    assert (
        f"of {padded[0]['images']} images they identify none (chance {chance}) and get back none" in english
    )
    assert f"0/{images} \u5f20\u56fe\u50cf\uff0c\u5374\u5728 {candidates} \u4e2a\u5019\u9009\u4e2d" in chinese
    assert f"\u8bc6\u522b\u51fa {found} \u5f20" in chinese
    assert f"{padded[0]['images']} \u5f20\u56fe\u50cf\u4e2d\u8bc6\u522b\u51fa 0 \u5f20" in chinese
    assert f"\u968f\u673a\u6c34\u5e73 {chance}\uff09\uff0c\u6062\u590d 0 \u5f20" in chinese
    assert f"DLG, without public images, gets back none of {images} at 5 %" in leakage


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
