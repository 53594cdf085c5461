import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from experiments import evaluate
from experiments.evaluation import document, partition, results, verdicts
from experiments.evaluation.grid import DENSE, PRUNED, SEEDS, Case, Recipe, grid, recipe_of, select
from experiments.evaluation.results import Results, bytes_to_target, with_bytes_to_target
from experiments.evaluation.verdicts import Target

QUICK = ["--only", "mnist,iid,2,convnet,dense,local", "--densities", "0.3", "--seeds", "1"]
SMALL = ["--rows", "1000", "--epochs", "2", "--prune-end-epoch", "1", "--aggregate-freq", "4"]
RECIPE = Recipe(1000, 2, 1, test_rows=100, optimizer="adam", learning_rate=0.01, weight_decay=0.0)


def row(accuracy, method="dense", rate=1.0, seed=1, curve=((90.0, 100), (95.0, 200)), **changes):
    strategy, scope = (DENSE, None) if method == "dense" else (PRUNED, method)
    case = Case("mnist", "iid", 2, "convnet", strategy, scope, rate, seed)
    made = {**case._asdict(), **asdict(RECIPE), "accuracy": accuracy, "bytes": curve[-1][1], "seconds": 1.0}
    return {**made, "curve": [list(point) for point in curve], **changes}


@pytest.mark.parametrize("parties", [2, 5, 10])
def test_dirichlet_gives_every_row_to_one_party_and_skews_the_labels(parties):
    labels = np.random.default_rng(0).integers(0, 10, 5000)
    split = partition.dirichlet(labels, parties, 0.5, 40, np.random.default_rng(1))
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(5000))
    assert min(map(len, split)) >= 40

    def spread(parts):  # mean distance of a party's label frequencies from those of all
        overall = np.bincount(labels, minlength=10) / len(labels)
        own = [np.bincount(labels[part], minlength=10) / len(part) for part in parts]
        return np.mean([np.abs(frequencies - overall).sum() for frequencies in own])

    even = partition.iid(5000, parties, np.random.default_rng(1))
    assert np.array_equal(np.sort(np.concatenate(even)), np.arange(5000))
    assert max(map(len, even)) - min(map(len, even)) <= 1
    assert spread(split) > 0.4 > 0.2 > spread(even)


def test_dirichlet_says_when_the_rows_are_too_few():
    with pytest.raises(ValueError, match=r"20 rows are too few for 10 parties.*each 5 rows"):
        partition.dirichlet(np.arange(20) % 10, 10, 0.5, 5, np.random.default_rng(0))


def test_bytes_to_target_is_the_upload_at_the_first_epoch_that_reaches_it():
    curve = [(80.0, 10), (94.0, 20), (93.0, 30), (95.0, 40)]
    assert bytes_to_target(curve, 94.0) == 20
    assert bytes_to_target(curve, 94.5) == 40
    assert bytes_to_target(curve, 95.1) is None


def test_the_target_is_the_dense_run_of_the_same_seed_and_recipe():
    pruned = row(94.0, "local", 0.3, curve=((93.0, 40), (94.0, 50)))
    filled = with_bytes_to_target(
        [
            pruned,
            row(95.0),
            row(99.0, seed=2, curve=((97.0, 1), (99.0, 2))),
            {**pruned, "seed": 2},
            {**pruned, "epochs": 3},
        ]
    )
    assert [entry["bytes_to_target"] for entry in filled] == [50, 200, 2, None, None]


def test_the_whole_grid_has_every_combination_once_and_dense_runs_first():
    cases = grid()
    assert len(cases) == len(set(cases)) == 2 * 2 * 3 * 2 * 3 * (1 + 2 * 4)
    for place, case in enumerate(cases):
        assert cases.index(case.dense()) <= place
    assert all(1 <= recipe_of(case).prune_end_epoch <= recipe_of(case).epochs for case in cases)


def test_only_selects_by_values():
    chosen = select(grid(), "mnist,iid,2,5,convnet,global")
    assert {(case.dataset, case.parties, case.method) for case in chosen} == {
        ("mnist", 2, "global"),
        ("mnist", 5, "global"),
    }
    assert len(chosen) == 2 * len(SEEDS) * 4
    assert select(grid(), "") == grid()


def test_a_run_is_measured_kept_and_not_repeated(tmp_path, capsys):
    arguments = [*QUICK, *SMALL, "--out", str(tmp_path)]
    assert evaluate.main(arguments) == 0
    rows = json.loads((tmp_path / evaluate.RESULTS).read_text())
    dense, pruned = rows
    assert (dense["strategy"], pruned["scope"], pruned["density"]) == (DENSE, "local", 0.3)
    # 16 steps of 1000 rows in batches of 64 over both parties are 4 rounds of 4 steps.
    assert dense["bytes"] == 2 * 4 * 4 * 1960
    assert [uploaded for _, uploaded in dense["curve"]] == [4 * 4 * 1960, 2 * 4 * 4 * 1960]
    assert 0 < pruned["bytes"] < 0.8 * dense["bytes"]
    assert 10 < pruned["accuracy"] < 100 and 10 < dense["accuracy"] < 100
    assert "bytes_to_target" in pruned and pruned["seconds"] > 0
    assert (tmp_path / document.DOCUMENT).exists() and (tmp_path / document.DENSITY_PICTURE).exists()
    assert "0 of them done before" in capsys.readouterr().err

    # A row that is lost is run again, and comes out the same; the one that is there is left alone.
    marked = {**dense, "seconds": 12345.0}
    (tmp_path / evaluate.RESULTS).write_text(json.dumps([marked]))
    assert evaluate.main(arguments) == 0
    assert "2 runs, 1 of them done before" in capsys.readouterr().err
    again = json.loads((tmp_path / evaluate.RESULTS).read_text())
    assert again[0]["seconds"] == 12345.0
    assert {**again[1], "seconds": 0} == {**pruned, "seconds": 0}


def test_another_recipe_is_another_run(tmp_path):
    kept = Results(tmp_path / "rows.json")
    kept.add(row(95.0))
    case = results.case_of(row(95.0))
    assert Results(tmp_path / "rows.json").has(case, RECIPE)
    assert not kept.has(case._replace(seed=2), RECIPE)
    assert not kept.has(case, replace(RECIPE, rows=2000))
    # The schedule of pruning means nothing to a dense run.
    assert kept.has(case, replace(RECIPE, prune_end_epoch=2, prune_freq=3, regrow_percent=10))
    pruned = row(94.0, "local", 0.3)
    kept.add(pruned)
    assert kept.has(results.case_of(pruned), RECIPE)
    other = replace(RECIPE, prune_freq=3)
    assert not kept.has(results.case_of(pruned), other)
    # It would stand in one table with runs of this schedule, as if it were another seed of them.
    with pytest.raises(ValueError, match=r"prune_freq.*choose another folder with --out"):
        kept.check_schedule(results.case_of(pruned)._replace(seed=2), other)
    kept.check_schedule(case, other)
    kept.check_schedule(results.case_of(pruned), replace(other, rows=2000))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"dataset": "mnist"}]', "[", '"text"'])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, content, capsys):
    file = tmp_path / evaluate.RESULTS
    file.write_text(content)
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([*QUICK, "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "must hold rows" in capsys.readouterr().err
    assert file.read_text() == content


def outcome(target, *rows):
    judged = verdicts.verdicts(with_bytes_to_target(rows), [target])
    return {
        verdict.method: (verdict.outcome, len(verdict.pruned.rows) if verdict.pruned else 0)
        for verdict in judged
    }


def test_accuracy_targets_compare_means_over_seeds():
    target = Target("convnet", 0.3, within=2.0)
    rows = [row(95.0), row(95.0, seed=2), row(94.0, "local", 0.3), row(92.0, "local", 0.3, seed=2)]
    assert outcome(target, *rows) == {"local": ("met", 2), "global": ("not measured", 0)}
    lower = row(91.9, "local", 0.3, seed=2)
    assert outcome(target, *rows[:3], lower)["local"] == ("missed", 2)
    assert outcome(target, *rows[2:])["local"] == ("not measured", 0)
    elsewhere = [{**entry, "split": "dirichlet"} for entry in rows]
    assert outcome(target, *elsewhere)["local"] == ("not measured", 0)


def test_a_verdict_says_how_much_the_seeds_deviate():
    accuracy, upload = Target("convnet", 0.3, within=2.0), Target("convnet", 0.3, fewer=4.0)
    dense = [row(95.0), row(95.0, seed=2, curve=((95.0, 400),))]
    pruned = [row(94.0, "local", 0.3), row(92.0, "local", 0.3, seed=2, curve=((94.0, 50), (92.0, 60)))]
    rows = with_bytes_to_target([*dense, pruned[0] | {"curve": [[94.0, 50]]}, pruned[1]])
    near, smaller = (verdicts.verdicts(rows, [target])[0].measured for target in (accuracy, upload))
    assert near == "2.00 points below dense ± 1.41, so within the seeds' noise of the target"
    assert smaller == "6.00 times smaller (4.00 to 8.00 by seed)"
    far = verdicts.verdicts(rows, [Target("convnet", 0.3, within=4.0)])[0].measured
    assert far == "2.00 points below dense ± 1.41"


def test_a_seed_whose_dense_run_stalled_does_not_count():
    target = Target("convnet", 0.3, within=2.0)
    rows = [row(95.0), row(80.0, seed=2), row(92.0, "local", 0.3), row(92.0, "local", 0.3, seed=2)]
    assert outcome(target, *rows)["local"] == ("missed", 1)
    text = document.document(with_bytes_to_target(rows))
    assert "seed 2, at 80.00 %" in text


def test_the_target_of_bytes_compares_uploads_and_is_missed_if_a_seed_never_arrives():
    target = Target("convnet", 0.1, fewer=4.0)
    dense = row(95.0)
    assert outcome(target, dense, row(95.0, "local", 0.1, curve=((94.0, 50),)))["local"] == ("met", 1)
    assert outcome(target, dense, row(95.0, "local", 0.1, curve=((94.0, 51),)))["local"] == ("missed", 1)
    assert outcome(target, dense, row(93.0, "local", 0.1, curve=((93.0, 10),)))["local"] == ("missed", 1)
    other_seed = row(93.0, "local", 0.1, seed=2, curve=((93.0, 10),))
    assert outcome(target, dense, other_seed)["local"] == ("not measured", 0)


def test_the_document_says_what_the_rows_say(tmp_path):
    rows = with_bytes_to_target(
        [row(95.0), row(94.0, seed=2), row(94.0, "local", 0.6), row(93.0, "local", 0.6, seed=2)]
    )
    text = document.document(rows)
    assert "| dense | 1 | 2 | 94.50 ± 0.71 | 0.00 |" in text
    assert "| local | 0.6 | 2 | 93.50 ± 0.71 | 1.00 |" in text
    assert "local | 1.00 points below dense ± 0.00 | 2 | **missed** |" in text
    assert (
        "local: 0.25 points too far below dense, on 1,000 of 60,000 rows; the seeds deviate by 0.71" in text
    )
    document.write_document(rows, tmp_path)
    assert (tmp_path / document.DOCUMENT).read_text() == text
    assert all(
        (tmp_path / name).stat().st_size > 10_000
        for name in (document.DENSITY_PICTURE, document.BYTES_PICTURE)
    )


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--only", "mnist,lenet", "fedavg-cnn"),
        ("--only", "3", "2, 5, 10"),
        ("--densities", "1", r"rates in \(0, 1\)"),
        ("--densities", "0.1,x", r"rates in \(0, 1\)"),
        ("--seeds", "0", "whole numbers from 1"),
        ("--seeds", "1.5", "whole numbers from 1"),
        ("--epochs", "1", "a whole number from 2 up"),
        ("--rows", "60001", "a whole number from 1000 to 60000"),
        ("--prune-end-epoch", "0", "a whole number from 1 up"),
        ("--regrow-percent", "20", "must be left out with global masks"),
        ("--prune-freq", "0", "a whole number from 1 up"),
        ("--aggregate-freq", "often", "a whole number from 1 up"),
        ("--data", "/nowhere", "does not exist"),
    ],
)
def test_what_is_not_allowed_is_named(flag, value, allowed, capsys, tmp_path):
    arguments = ["--out", str(tmp_path), flag, value]
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert flag in message and value.split(",")[-1] in message
    assert re.search(allowed, message)


def test_a_schedule_longer_than_the_training_is_refused(capsys, tmp_path):
    with pytest.raises(SystemExit):
        evaluate.main([*QUICK, "--epochs", "3", "--prune-end-epoch", "4", "--out", str(tmp_path)])
    assert "--prune-end-epoch: must be at most --epochs, 3, got 4" in capsys.readouterr().err


def test_fashion_mnist_is_left_out_with_a_word_if_it_is_not_there(tmp_path, capsys):
    assert evaluate.load_datasets({"fashion-mnist"}, installed=tmp_path / "missing") == {}
    said = capsys.readouterr().err
    assert "Fashion-MNIST is left out" in said and "dataset-fashion-mnist" in said


def test_help_explains_every_flag():
    flags = [action for action in evaluate.make_parser()._actions if action.option_strings]
    assert all(flag.help for flag in flags)
