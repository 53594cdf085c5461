"""An audit from rows to report: what it finds, says, keeps and refuses."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from secretflow.audit.__main__ import main, make_parser
from secretflow.ml.nn.core.torch import TorchModel
from secretflow.ml.nn.fl.audit import AuditReport, AuditSettings, Rows, audit
from secretflow.ml.nn.fl.audit.attackers import ATTACKERS
from secretflow.ml.nn.fl.audit.callback import LeakageAudit
from secretflow.ml.nn.fl.audit.judging import MARGIN, standing, verdict
from secretflow.ml.nn.fl.audit.subject import Subject
from secretflow.ml.nn.fl.audit.words import TEXTS, say
from secretflow.ml.nn.fl.worker.capture_files import write_capture

from ..conftest import CLASSES, FEATURES, Mlp, Task, model_def

QUICK = AuditSettings(rows=16, parties=(4,), minutes=0.001)
"""No time for whoever searches."""


def table(count: int = 300, seed: int = 0, classes: int = CLASSES) -> Rows:
    drawn = torch.Generator().manual_seed(seed)
    x = torch.randn(count, FEATURES, generator=drawn)
    y = torch.randint(classes, (count,), generator=drawn)
    return Rows(x, y, "table", tuple("abcdef"[:classes]))


def perceptron(inputs: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, classes))


class Deaf(nn.Module):
    """Its gradient says nothing of a row, not even its class: all its classes have the same score."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), CLASSES) + 0 * self.weight.sum() + 0 * x.sum(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> AuditReport:
    return audit(perceptron, table(), QUICK, out=tmp_path_factory.mktemp("audit"), verbose=False)


def test_a_perceptron_gives_its_rows_away_and_the_first_sentence_says_so(finished: AuditReport) -> None:
    assert finished.verdicts() == {"upload": "leaks", "average of 4": "leaks"}
    first, second = finished.answer().split("\n")
    assert first.startswith("Yes: from the upload of one party, batch of 1, attackers pick 16 of 16 (")
    assert "rebuild 16 of 16 (81 to 100 %)" in first
    assert second.startswith("Averaging does not stop it: from the average of 4 parties")
    assert finished.answer("zh").startswith("\u4f1a\uff1a从一方的上传")


def test_each_row_has_three_scores_with_interval_and_chance_under_the_agreed_names(
    finished: AuditReport,
) -> None:
    names = {"attack", "knowledge", "density", "bits", "parties", "images", "candidates"}
    for row in json.loads((finished.folder / "report.json").read_text())["rows"]:
        assert names <= row.keys()
        for score in ("successes", "identified", "recognised"):
            low, high = row[f"interval_{score}"] or (0, 1)
            assert row[score] is None or low <= row[score] / row["images"] <= high
            assert 0 <= row[f"chance_{score}"] < 1
        assert "examples" not in row


def test_guessing_is_printed_beside_it(finished: AuditReport) -> None:
    found = {(row["scene"], row["baseline"]) for row in finished.content["baselines"]}
    for guess in ("mean", "noise", "random public rows", "nearest public rows"):
        assert ("upload", guess) in found and ("average of 4", guess) in found
    blind = [row for row in finished.content["baselines"] if row["baseline"] != "nearest public rows"]
    assert all(row["identified"] <= 5 for row in blind)


def test_the_page_is_one_private_file_in_two_languages_with_the_answer_first(finished: AuditReport) -> None:
    text = finished.html.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)", text) and "<script" not in text
    assert text.index("Yes: from the upload") < text.index("By who sees what")
    assert text.index("By who sees what") < text.index("What was not measured")
    assert text.count('class="en"') == text.count('class="zh"') > 50
    for file in ("report.html", "report.json", "measured.jsonl"):
        assert stat.S_IMODE((finished.folder / file).stat().st_mode) == 0o600


def test_what_was_not_tried_for_want_of_time_is_said(finished: AuditReport) -> None:
    refused = {row["attack"]: row["why"] for row in finished.content["not_measured"]}
    assert refused["DLG"] == "lack of time"
    first_part = finished.html.read_text(encoding="utf-8").partition("By who sees what")[0]
    for view in ("upload of one party, batch of 1", "average of 4 parties, batches of 1"):
        assert f"Not run on the {view} for lack of time: " in first_part


def test_nobody_is_promised_more_time_whom_the_rows_do_not_suit(tmp_path: Path) -> None:
    settings = replace(QUICK, parties=(8,))
    report = audit(perceptron, table(classes=2), settings, out=tmp_path, verbose=False)
    why = {row["attack"]: row["why"] for row in report.content["not_measured"] if row["parties"] == 8}
    for name in ("Gaussian prior", "Inverting Gradients"):
        assert why[name].startswith("batch_size must be at most the number of classes, 2")
    assert why["DLG"] == "lack of time"


def test_it_says_who_was_tried_on_a_view_and_why_others_were_not(finished: AuditReport) -> None:
    upload, average = finished.tried().split("Tried on the average")
    assert upload.startswith(
        "Tried on the upload of one party, batch of 1: first layer divided by its bias, "
    )
    assert "regression on what fully connected layers were given" in upload
    assert re.search(r"  not rows read off one by one, .*: for several rows together\n", upload)
    assert re.search(r"  not .*search by distance \(DLG\): lack of time\n", upload)
    assert "rows read off one by one" in average.split("\n")[0]
    assert "  not tokens read off the embedding: for tokens" in average
    assert finished.tried("zh").startswith("\u5bf9\u4e00\u65b9\u7684\u4e0a\u4f20")
    names = {attacker.name for attacker in ATTACKERS}
    for scene in finished.content["scenes"]:
        lists = (finished.content[key] for key in ("rows", "not_measured", "not_for_it"))
        assert names == {row["attack"] for rows in lists for row in rows if row["scene"] == scene}


def test_no_private_row_is_shown_if_it_shall_not_be(finished: AuditReport, tmp_path: Path) -> None:
    assert "came back" in finished.html.read_text(encoding="utf-8")
    hidden = audit(perceptron, table(), replace(QUICK, show_rows=False), out=tmp_path, verbose=False)
    text = hidden.html.read_text(encoding="utf-8")
    assert "came back</span>" not in text and "This report shows private rows" not in text


def test_an_audit_goes_on_where_it_was_stopped(finished: AuditReport) -> None:
    kept = (finished.folder / "measured.jsonl").read_text()
    again = audit(perceptron, table(), QUICK, out=finished.folder, verbose=False)
    assert (finished.folder / "measured.jsonl").read_text() == kept
    assert again.rows == finished.rows
    other = audit(perceptron, table(seed=1), QUICK, out=finished.folder, verbose=False)
    assert other.rows != finished.rows  # other rows are measured anew


def test_a_gradient_that_says_nothing_leaks_nothing(tmp_path: Path) -> None:
    settings = AuditSettings(rows=100, parties=(), minutes=0.001)
    report = audit(Deaf, table(1000), settings, out=tmp_path, verbose=False)
    assert report.rows and report.verdicts()["upload"] != "leaks"


@pytest.mark.slow
def test_a_searching_attacker_gets_rows_back_when_there_is_time(tmp_path: Path) -> None:
    def smooth() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 12), nn.Sigmoid(), nn.Linear(12, CLASSES))

    settings = AuditSettings(rows=4, batch_size=2, parties=(), minutes=0.5)
    report = audit(smooth, table(120), settings, out=tmp_path, verbose=False)
    found = {row["attack"]: row for row in report.rows}
    assert found["DLG"]["images"] >= 2 and found["DLG"]["effort"]["steps"] >= 20


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"identified": (50, 100)}, "leaks"),
        ({"identified": (0, 100), "successes": (0, 100), "recognised": (30, 100)}, "chance"),
        ({"identified": (0, 100), "successes": (0, 100), "recognised": (60, 100)}, "leaks"),
        ({"identified": (0, 100), "successes": (0, 100)}, "undecided"),
        ({"identified": (0, 4), "successes": (0, 4), "recognised": (1, 4)}, "undecided"),
    ],
)
def test_a_view_protects_only_if_all_three_scores_are_at_chance(
    counts: dict[str, tuple[int, int]], expected: str
) -> None:
    from secretflow.ml.nn.fl.audit.intervals import wilson_interval

    row: dict = {"images": 100}
    for score, chance in (("successes", 0.0), ("identified", 0.001), ("recognised", 1 / 3)):
        row |= {score: None, f"interval_{score}": None, f"chance_{score}": chance}
        if score in counts:
            row |= {score: counts[score][0], f"interval_{score}": wilson_interval(*counts[score])}
    assert verdict([row]) == expected
    assert verdict([]) == "undecided" and MARGIN == 0.1
    assert standing({**row, "interval_successes": None}, "successes") is None


def test_pictures_and_tokens_are_audited_and_shown(tmp_path: Path) -> None:
    drawn = torch.Generator().manual_seed(0)
    x = torch.rand(60, 3, 4, 4, generator=drawn)
    rows = Rows(x, torch.randint(2, (60,), generator=drawn), "images", ("a", "b"))

    def net(channels: int, size: int, classes: int) -> nn.Module:
        width = channels * size * size
        return nn.Sequential(nn.Flatten(), nn.Linear(width, 20), nn.ReLU(), nn.Linear(20, classes))

    report = audit(net, rows, QUICK, out=tmp_path / "images", verbose=False)
    assert "data:image/png;base64," in report.html.read_text() and report.verdicts()["upload"] == "leaks"
    tokens = torch.randint(1, 40, (60, 5), generator=drawn).float()
    words = tuple(f"word{k}" for k in range(40))
    rows = Rows(tokens, rows.y, "tokens", ("a", "b"), padding=0, words=words)

    class Bag(nn.Module):
        def __init__(self, vocabulary: int, classes: int) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, 8, padding_idx=0)
            self.head = nn.Linear(8, classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.embedding(x).mean(dim=1)))

    report = audit(Bag, rows, QUICK, out=tmp_path / "tokens", verbose=False)
    read = next(row for row in report.rows if row["attack"] == "tokens")
    assert read["successes"] == read["images"] == 15  # half of the candidates
    assert "word" in report.html.read_text()


def test_one_score_and_a_torch_model_are_taken_as_they_are(tmp_path: Path) -> None:
    def one() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))

    model = TorchModel(one, nn.BCEWithLogitsLoss, None)
    report = audit(model, table(classes=2), QUICK, out=tmp_path, verbose=False)
    assert report.content["loss"] == "bce_with_logits" and report.content["switched_off"] == ["2"]
    closed = next(row for row in report.rows if row["attack"] == "closed form")
    assert closed["successes"] == closed["recognised"] == 16
    net = Subject(one, table(classes=2), "bce_with_logits").build().eval()
    x, y = torch.randn(5, FEATURES), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    scores = net(x)
    own = nn.functional.binary_cross_entropy_with_logits(scores[:, 1], y)
    torch.testing.assert_close(nn.functional.cross_entropy(scores, y.long()), own)


def test_captured_rounds_are_attacked_in_place_of_made_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, own = Mlp(), table(4, seed=5)
    nn.functional.cross_entropy(net(own.x[:1]), own.y[:1]).backward()
    mask = {name: torch.ones_like(net.state_dict()[name]) for name in ("hidden.weight", "out.weight")}
    write_capture(
        str(tmp_path / "round-3"),
        x=own.x[:1],
        y=own.y[:1],
        weights={name: value.detach() for name, value in net.state_dict().items()},
        mask=mask,
        gradients=[parameter.grad for parameter in net.parameters()],
        party="alice",
        round_number=3,
        density=1.0,
    )
    report = audit(Mlp, table(), QUICK, captures=[tmp_path / "round-3"], out=tmp_path / "out", verbose=False)
    assert list(report.verdicts()) == ["round 3 of alice"]
    closed = next(row for row in report.rows if row["attack"] == "closed form")
    assert (closed["view"], closed["images"], closed["successes"]) == ("capture", 1, 1)


def test_a_pruned_checkpoint_is_attacked_under_its_mask(tmp_path: Path) -> None:
    net = perceptron(FEATURES, CLASSES)
    with torch.no_grad():
        net[0].weight[:, ::2] = 0
    torch.save(net.state_dict(), tmp_path / "model.pt")
    report = audit(
        perceptron, table(), QUICK, weights=tmp_path / "model.pt", out=tmp_path / "out", verbose=False
    )
    assert report.content["trained"] and 0.5 < report.rows[0]["density"] < 0.7
    with pytest.raises(ValueError, match="weights must be those of the model"):
        audit(Mlp, table(), QUICK, weights=tmp_path / "model.pt", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"parties": (1,)}, "parties must be an integer of at least 2"),
        ({"density": 0}, "density must be a number above 0"),
        ({"minutes": -1}, "minutes must be a number above 0"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AuditSettings(**arguments)


@pytest.mark.parametrize(
    ("model", "loss", "message"),  # of the error, as a pattern
    [
        ("net", None, "model must be .module:function"),
        ("nowhere:net", None, "model must name a module that can be imported"),
        ("nowhere.py:net", None, "model must name a file that is there"),
        (lambda wrong: nn.Linear(1, 1), None, "model must be built from"),
        (perceptron, "mse", "loss must be one of"),
        (lambda: nn.Linear(FEATURES + 1, CLASSES), None, "model must be a net that takes these rows"),
        (TorchModel(Mlp, nn.MSELoss, None), None, "another loss cannot be audited yet"),
    ],
)
def test_a_model_that_cannot_be_audited_is_refused(model: object, loss: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Subject(model, table(), loss)


def test_a_net_of_one_score_is_told_the_loss_that_it_needs() -> None:
    with pytest.raises(ValueError, match=r"loss must be 'bce_with_logits' or .*, got 'cross_entropy'"):
        Subject(lambda: nn.Linear(FEATURES, 1), table(classes=2))


def test_normalisation_by_batch_takes_a_row_alone_when_the_net_is_looked_at() -> None:
    net = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))
    assert Subject(lambda: net, table()).weights["1.num_batches_tracked"] == 0


def test_chinese_sets_a_space_before_a_number() -> None:
    view = say("average", parties=8, batch=1)
    assert say("also leaks", view=view, what="").zh.partition("从")[2].startswith(" 8 方的平均")


def test_every_attacker_has_words_for_the_report() -> None:
    assert {attacker.name for attacker in ATTACKERS} <= TEXTS.keys()
    places = re.compile(r"{(\w+)}")
    for key, text in TEXTS.items():
        assert sorted(places.findall(text.en)) == sorted(places.findall(text.zh)), key


def test_the_command_line_explains_each_option_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    options = [action for action in make_parser()._actions if action.option_strings]
    assert all(action.help and action.option_strings[-1] in told for action in options)
    with pytest.raises(SystemExit) as stopped:
        main(["--model", "net.py:net"])
    assert stopped.value.code == 2
    assert main(["--model", "net.py:net", "--csv", "no.csv", "--label", "died"]) == 2
    assert main(["--model", "net.py:net", "--arrays", "no.npz", "--batch-size", "0"]) == 2
    assert "audit: batch_size must be" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_running_training_is_audited_at_the_party_every_few_rounds(
    task: Task, devices: SimpleNamespace, tmp_path: Path
) -> None:
    settings = AuditSettings(rows=8, parties=(), minutes=0.001)
    watch = LeakageAudit(
        model_def(), devices.alice(table)(60), every=2, out=str(tmp_path / "out"), settings=settings
    )
    model = task.make_model()
    model.fit(task.x, task.y, epochs=1, batch_size=10, callbacks=[watch])
    assert list(watch.reports) == [2, 4]
    report = watch.reports[4]
    assert report.verdicts() == {"upload": "leaks"} and report.content["trained"]
    assert report.html == tmp_path / "out" / "alice" / "round-4" / "report.html" and report.html.is_file()
    assert not (report.folder / "model").exists()  # the checkpoint tells of the party's gradients
    elsewhere = LeakageAudit(model_def(), devices.davy(table)(60), every=2)
    with pytest.raises(ValueError, match=r"rows must be at a party that trains, .* got them at 'davy'"):
        model.fit(task.x, task.y, epochs=1, batch_size=10, callbacks=[elsewhere])
