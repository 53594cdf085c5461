"""How the time of an audit is shared, and what the report says of those for whom it was too short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.audit import AuditSettings, Rows, audit, run
from secretflow.ml.nn.fl.audit.attempt import Attacker, Attempt, Findings, Guess, OutOfTimeError
from secretflow.ml.nn.fl.audit.shares import Shares


def test_those_who_do_not_search_leave_half_of_the_time_to_those_who_do() -> None:
    shares = Shares(minutes=10, quick=4, searching=2)
    assert shares.next(False) == pytest.approx(300 / 4, rel=0.05)
    shares.next(False), shares.next(False)
    assert shares.next(False) == pytest.approx(300, rel=0.05)  # what others did not need is the last one's
    assert shares.next(True) == pytest.approx(600 / 2, rel=0.05)
    assert shares.next(True) == pytest.approx(600, rel=0.05)
    assert Shares(minutes=10, quick=4, searching=0).next(False) == pytest.approx(600 / 4, rel=0.05)


def test_who_does_not_search_has_a_least_time_however_many_and_however_late_they_are() -> None:
    assert Shares(minutes=12, quick=1000, searching=1).next(False) == 60
    assert Shares(minutes=1e-9, quick=1, searching=1).next(False) == 1


def test_a_search_that_was_short_of_time_has_what_it_needs_if_there_is_as_much() -> None:
    shares = Shares(minutes=10, quick=0, searching=1)
    assert shares.again(needed=100, waiting=2) == pytest.approx(300, rel=0.05)
    assert shares.again(needed=550, waiting=2) == 550
    assert shares.again(needed=700, waiting=1) is None


def searching(name: str, needed: float) -> Attacker:
    """An attacker that says what it needs and, with as much, answers with the mean row."""

    def tries(attempt: Attempt) -> Findings:
        if attempt.seconds < needed:
            raise OutOfTimeError(needed)
        shape = (attempt.scene.rows_together, *attempt.rows.shape)
        mean = attempt.public.x.mean(dim=0).expand(shape)
        return Findings(tuple(Guess(mean, None) for _ in attempt.scene.observations))

    return Attacker(name, True, tries)


def test_a_search_has_a_second_chance_and_the_first_part_names_whom_the_time_was_too_short_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attackers = (
        searching("Gaussian prior", needed=3000),
        searching("Inverting Gradients", needed=30),  # of one minute it has a third, and then what is left
        searching("DLG", needed=0),
    )
    monkeypatch.setattr(run, "ATTACKERS", attackers)
    drawn = torch.Generator().manual_seed(0)
    rows = Rows(torch.randn(60, 4, generator=drawn), torch.arange(60) % 2, "table", ("a", "b"))
    settings = AuditSettings(rows=8, parties=(), minutes=1)
    report = audit(lambda inputs: nn.Linear(inputs, 2), rows, settings, out=tmp_path, verbose=False)
    assert [row["attack"] for row in report.rows] == ["Inverting Gradients", "DLG"]
    (short,) = report.content["not_measured"]
    assert (short["attack"], short["why"], short["seconds_needed"]) == (
        "Gaussian prior",
        "lack of time",
        3000,
    )
    page = report.html.read_text(encoding="utf-8")
    first_part = page.partition("By who sees what")[0]
    assert (
        "Not run on the upload of one party, batch of 1 for lack of time: search with a prior of such rows "
        "(at least 50 min). With more minutes"
    ) in first_part
    assert re.search("\u56e0\u65f6\u95f4\u4e0d\u591f.*\u5148\u9a8c.* 50 \u5206\u949f", first_part)
    assert "prior of such rows: lack of time, takes 50 min at least" in report.tried()


def test_nothing_is_said_of_time_where_it_was_long_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ATTACKERS", (searching("DLG", needed=0),))
    rows = Rows(torch.randn(60, 4), torch.arange(60) % 2, "table", ("a", "b"))
    settings = AuditSettings(rows=8, parties=(), minutes=1)
    report = audit(lambda inputs: nn.Linear(inputs, 2), rows, settings, out=tmp_path, verbose=False)
    assert "lack of time" not in report.html.read_text(encoding="utf-8")
