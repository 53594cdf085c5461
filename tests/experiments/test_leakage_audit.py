import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import leakage_audit
from experiments.audit import accuracy, report, tasks
from experiments.audit.cells import (
    INFERRED,
    KNOWN,
    OBLIVIOUS,
    PRUNING,
    Cell,
)
from experiments.audit.command_line import make_parser
from secretflow.ml.nn.fl.audit.finished import Finished, key_of

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
    flags = [action for action in make_parser()._actions if action.option_strings]
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
    assert found[0.5, KNOWN]["successes"] == 2 and found[0.5, KNOWN]["density"] == pytest.approx(0.5)
    assert found[0.5, OBLIVIOUS]["successes"] == 0 and found[0.5, KNOWN]["identified"] == 2
    assert all(row["candidates"] == 10_000 for row in [*written["rows"], *written["baselines"]])
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
    real = tasks._work
    monkeypatch.setattr(tasks, "_work", lambda task, effort: submitted.append(task) or real(task, effort))
    assert leakage_audit.main(["--out", str(finished), *CLOSED_FORM]) == 0
    assert len(submitted) == 1
    assert json.loads((finished / "report.json").read_text())["complete"]


@pytest.mark.slow
def test_rows_of_another_program_are_measured_anew(finished, monkeypatch):
    measured = len(Finished(finished / "rows.jsonl")._rows)
    monkeypatch.setattr(leakage_audit, "digest_of_code", lambda: "another")
    monkeypatch.setattr(tasks, "digest_of_code", lambda: "another")
    assert leakage_audit.main(["--out", str(finished), *CLOSED_FORM]) == 0
    assert len(Finished(finished / "rows.jsonl")._rows) == 2 * measured
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
    Finished(path).add("a", {"mse": float("inf")})
    with path.open("a") as file:
        file.write('{"key": "b", "ms')
    assert Finished(path).get("a") == {"mse": None} and Finished(path).get("b") is None


def test_a_row_after_a_torn_line_is_not_lost(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "torn')
    Finished(path).add("a", {"mse": 1.0})
    assert Finished(path).get("a") == {"mse": 1.0}
