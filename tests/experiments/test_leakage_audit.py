import json
import pickle
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import leakage_audit
from experiments.audit import accuracy, answer, matrix, page, report
from experiments.audit.accuracy import accuracy_under
from experiments.audit.attack_cell import SHOWN, Effort, baselines, filled_in, measure
from experiments.audit.cells import (
    INFERRED,
    KNOWN,
    OBLIVIOUS,
    PRUNING,
    REMOVED,
    SECURE,
    SPARSE,
    WEIGHTS_ONLY,
    ZEROS_LEFT_OUT,
    Cell,
    plan,
)
from experiments.audit.data import SEED_IMAGE, cifar100, crops, mnist
from experiments.audit.rows import Rows, key_of
from experiments.data import load_images

SCRIPT = Path(leakage_audit.__file__)
SMALL = ["--images", "2", "--restarts", "1", "--iterations", "2", "--datasets", "MNIST", "--workers", "1"]
CLOSED_FORM = [
    *SMALL,
    "--attacks",
    "closed form",
    "--defences",
    "none",
    "weight pruning",
    "--removed",
    "0",
    "0.5",
]


@pytest.fixture(scope="module", autouse=True)
def short_trainings():
    """What trainings come to is the accuracy tests' matter; here they only have to happen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accuracy, "ROUNDS", 20)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An audit of the closed form alone, which takes no search."""
    out = tmp_path_factory.mktemp("audit")
    assert leakage_audit.main(["--out", str(out), *CLOSED_FORM]) == 0
    return out


def test_help_explains_every_flag_and_runs_from_any_directory(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    flags = [action for action in leakage_audit.make_parser()._actions if action.option_strings]
    assert all(flag.help and flag.option_strings[-1] in done.stdout for flag in flags)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--images", "0"],
        ["--first", "60", "--images", "33"],
        ["--images", "93"],
        ["--start-deviation", "-1"],
        ["--restarts", "0"],
        ["--minutes", "0"],
        ["--removed", "1.0"],
        ["--noise", "-1"],
        ["--tv-weight", "-1"],
        ["--attacks", "guessing"],
        ["--datasets", "CIFAR-100"],
        ["--data", "/nowhere"],
    ],
)
def test_a_flag_that_is_not_allowed_ends_the_program_before_anything_starts(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        leakage_audit.main(["--out", str(tmp_path / "out"), *arguments])
    assert stopped.value.code == 2
    assert arguments[-1] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_finished_audit_has_its_report_its_plots_and_a_page(finished):
    written = json.loads((finished / "report.json").read_text())
    assert written["complete"] and written["missing"] == []
    found = {(row["level"], row["knowledge"]): row for row in written["rows"]}
    assert found.keys() == {(0.0, KNOWN)} | {(0.5, knowledge) for knowledge in (OBLIVIOUS, KNOWN, INFERRED)}
    assert found[0.5, KNOWN]["successes"] == 2 and found[0.5, KNOWN]["living_rate"] == pytest.approx(0.5)
    assert found[0.5, OBLIVIOUS]["successes"] == 0 and found[0.5, KNOWN]["identified"] == 2
    assert all(row["candidates"] == 100 for row in [*written["rows"], *written["baselines"]])
    assert {row["baseline"] for row in written["baselines"]} == {"mean image", "random noise"}
    assert (finished / "success_closed_form_mnist.png").stat().st_size > 1000
    html = (finished / "report.html").read_text()
    assert "closed form" in html and "data:image/png;base64," in html
    assert "http" not in html.replace("http-equiv", "")  # nothing is loaded from elsewhere


def test_plots_and_page_are_drawn_anew_from_the_figures_alone(finished):
    page_before = (finished / "report.html").read_text()
    figures = {name: (finished / name).read_bytes() for name in ("report.json", "examples.json")}
    (finished / "report.html").unlink()
    assert report.main([str(finished)]) == 0
    assert (finished / "report.html").read_text() == page_before
    assert figures == {name: (finished / name).read_bytes() for name in figures}


def test_a_folder_without_figures_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        report.main([str(tmp_path)])
    assert "report.json" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_an_audit_goes_on_where_it_was_stopped(finished, monkeypatch):
    measured = (finished / "rows.jsonl").read_text().splitlines()
    (finished / "rows.jsonl").write_text(
        "\n".join(measured[:-1]) + "\n" + measured[-1][: len(measured[-1]) // 2]
    )
    submitted = []
    real = leakage_audit._work
    monkeypatch.setattr(
        leakage_audit, "_work", lambda task, effort: submitted.append(task) or real(task, effort)
    )
    assert leakage_audit.main(["--out", str(finished), *CLOSED_FORM]) == 0
    assert len(submitted) == 1
    assert json.loads((finished / "report.json").read_text())["complete"]


def test_rows_of_another_program_are_measured_anew(finished, monkeypatch):
    measured = len(Rows(finished / "rows.jsonl")._rows)
    monkeypatch.setattr(leakage_audit, "digest_of_code", lambda: "another")
    assert leakage_audit.main(["--out", str(finished), *CLOSED_FORM]) == 0
    assert len(Rows(finished / "rows.jsonl")._rows) == 2 * measured
    assert json.loads((finished / "report.json").read_text())["code"] == "another"


def test_the_program_is_known_by_its_source(tmp_path, monkeypatch):
    from experiments.audit import code

    folder = tmp_path / "audit"
    shutil.copytree(Path(code.__file__).parent, folder)
    monkeypatch.setattr(code, "audit", [str(folder)])
    before = code.digest_of_code.__wrapped__()
    assert before == code.digest_of_code.__wrapped__() == code.digest_of_code()
    (folder / "noise.py").write_text((folder / "noise.py").read_text() + "# changed\n")
    assert code.digest_of_code.__wrapped__() != before


def test_other_settings_measure_anew():
    cell = Cell("MNIST", "DLG", "gradient", PRUNING, 0.5, KNOWN).as_dict()
    assert key_of(cell, {"seed": 1}) == key_of(dict(reversed(cell.items())), {"seed": 1})
    assert key_of(cell, {"seed": 1}) != key_of(cell, {"seed": 2})


def test_no_row_starts_after_the_time_is_over(tmp_path):
    assert leakage_audit.main(["--out", str(tmp_path), *CLOSED_FORM, "--minutes", "1e-9"]) == 0
    written = json.loads((tmp_path / "report.json").read_text())
    assert not written["complete"] and written["rows"] == [] and len(written["missing"]) == 6
    assert "6 rows are missing" in (tmp_path / "report.html").read_text()


def test_rows_survive_being_killed_while_one_is_written(tmp_path):
    path = tmp_path / "rows.jsonl"
    Rows(path).add("a", {"mse": float("inf")})
    with path.open("a") as file:
        file.write('{"key": "b", "ms')
    assert Rows(path).get("a") == {"mse": None} and Rows(path).get("b") is None


def test_a_row_after_a_torn_line_is_not_lost(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "torn')
    Rows(path).add("a", {"mse": 1.0})
    assert Rows(path).get("a") == {"mse": 1.0}


def test_both_attackers_meet_every_pruning_rate():
    cells = plan(["MNIST", "colour crops"])
    assert REMOVED[0] == 0 and Cell("MNIST", "DLG", "gradient", PRUNING, 0.0, KNOWN) in cells
    for level in REMOVED[1:]:
        for knowledge in (OBLIVIOUS, WEIGHTS_ONLY, KNOWN, INFERRED):
            assert Cell("MNIST", "DLG", "gradient", PRUNING, level, knowledge) in cells
        for attack in ("iDLG", "Inverting Gradients", "closed form"):
            for knowledge in (OBLIVIOUS, KNOWN):
                assert Cell("MNIST", attack, "gradient", PRUNING, level, knowledge) in cells
    for view in ("update k=5", "aggregate n=2", "aggregate n=4", "aggregate n=8"):
        for knowledge in (OBLIVIOUS, KNOWN, INFERRED):
            assert any((c.view, c.level, c.knowledge) == (view, 0.5, knowledge) for c in cells)
    assert len(set(cells)) == len(cells)


@pytest.mark.parametrize(
    "cell",
    [
        Cell("MNIST", "DLG", "update k=5", PRUNING, 0.5, KNOWN),
        Cell("MNIST", "DLG", "aggregate n=2", PRUNING, 0.5, KNOWN),
        Cell("MNIST", "closed form", "gradient", PRUNING, 0.5, INFERRED),
        Cell("MNIST", "Inverting Gradients", "gradient", "Gaussian noise", 0.1, "nothing to know"),
        Cell("MNIST", "iDLG", "gradient", SPARSE, 0.5, ZEROS_LEFT_OUT),
        Cell("MNIST", "iDLG", "padded upload", SECURE, 0.0, KNOWN),
        Cell("colour crops", "iDLG", "gradient", PRUNING, 0.9, WEIGHTS_ONLY),
    ],
)
def test_every_kind_of_cell_is_measured(cell):
    dataset = mnist() if cell.data == "MNIST" else crops()
    row = measure(cell, dataset, Effort(images=2, restarts=1, iterations=1, adam_iterations=1))
    assert row["images"] == (8 if cell.view == "padded upload" else 2)
    assert 0 <= row["interval"][0] <= row["interval"][1] <= 1
    assert len(row["examples"]) == min(row["images"], SHOWN) and row["attack"] == cell.attack
    json.dumps(row)


def test_a_mask_inferred_without_a_mistake_is_not_attacked_twice():
    effort = Effort(images=2, restarts=1, iterations=1)
    inferred, known = (
        measure(Cell("MNIST", "DLG", "gradient", PRUNING, 0.5, knowledge), mnist(), effort)
        for knowledge in (INFERRED, KNOWN)
    )
    other = {**known, "level": 0.8, "median_mse": 7.0}
    filled = filled_in(inferred, [other, known])
    assert filled["median_mse"] == known["median_mse"] and filled["knowledge"] == INFERRED
    assert filled_in(inferred, [other]) is None
    assert filled_in(known, []) is known


def test_guessing_without_seeing_anything_fails():
    for row in baselines(mnist(), Effort(images=20)):
        assert row["successes"] == row["identified"] == 0


def test_crops_are_a_hundred_different_colour_images():
    dataset = crops()
    assert dataset.x.shape == (100, 3, 32, 32) and dataset.x.min() >= 0 and dataset.x.max() <= 1
    assert len(torch.unique(dataset.x.flatten(1), dim=0)) == 100


def write_cifar(folder, content):
    (folder / "cifar-100-python").mkdir()
    (folder / "cifar-100-python" / "train").write_bytes(pickle.dumps(content, protocol=2))


def test_cifar_is_read_from_torchvisions_layout_the_seeds_image_first(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 3072)).astype(np.uint8)
    write_cifar(tmp_path, {b"data": pixels, b"fine_labels": list(range(100)) + [7] * 20})
    dataset = cifar100(tmp_path)
    expected = torch.from_numpy(pixels[SEED_IMAGE].reshape(3, 32, 32)) / 255
    assert torch.equal(dataset.x[0], expected) and dataset.y[0] == SEED_IMAGE
    assert dataset.x.shape == (100, 3, 32, 32) and dataset.classes == 100


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("code in the data was run",))


@pytest.mark.parametrize(
    "content", [{b"data": _Trap(), b"fine_labels": []}, {b"data": np.zeros((2, 3072), "u1")}, 3]
)
def test_what_is_not_cifar_is_refused_and_runs_nothing(tmp_path, content):
    write_cifar(tmp_path, content)
    with pytest.raises(ValueError, match="not CIFAR-100"):
        cifar100(tmp_path)


def made_up_row(knowledge, level, successes, identified=0, attack="DLG"):
    return {
        **Cell("MNIST", attack, "gradient", PRUNING, level, knowledge).as_dict(),
        "living_rate": 1 - level,
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
    root = SCRIPT.parents[1]
    rows = json.loads((root / "dgl" / "audit" / "report.json").read_text())["rows"]
    lines = [line.strip() for line in (root / name).read_text().splitlines()]
    assert all(line in lines for line in matrix.markdown(rows, "MNIST", chinese).splitlines())


def test_the_committed_page_is_drawn_from_the_committed_figures():
    folder = SCRIPT.parents[1] / "dgl" / "audit"
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


def test_a_defence_that_removes_nothing_costs_nothing(monkeypatch):
    monkeypatch.setattr(accuracy, "ROUNDS", 300)
    images = load_images().first(500)
    whole, same = (accuracy_under(defence, 0.0, images, seeds=[1]) for defence in (PRUNING, SPARSE))
    assert whole["accuracy"] == same["accuracy"] > 0.3


def test_accuracy_is_the_mean_over_seeds():
    images = load_images().first(500)
    both = accuracy_under(PRUNING, 0.5, images, seeds=[1, 2])
    each = [accuracy_under(PRUNING, 0.5, images, seeds=[seed])["accuracy"] for seed in (1, 2)]
    assert both["accuracies"] == each and each[0] != each[1]
    assert both["accuracy"] == pytest.approx(sum(each) / 2, abs=1e-4)
