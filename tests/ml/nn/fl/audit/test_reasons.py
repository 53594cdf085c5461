"""Why an attacker was not tried, in both languages; the messages are those of the attackers themselves."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from secretflow.ml.nn.fl.audit import AuditSettings, Rows
from secretflow.ml.nn.fl.audit.attackers import ATTACKERS
from secretflow.ml.nn.fl.audit.attempt import Attempt, OutOfTimeError
from secretflow.ml.nn.fl.audit.reasons import reason
from secretflow.ml.nn.fl.audit.rows import KINDS
from secretflow.ml.nn.fl.audit.scenes import scenes_of
from secretflow.ml.nn.fl.audit.split import split
from secretflow.ml.nn.fl.audit.subject import Subject

ENGLISH = re.compile(r"[a-z]{2,}")
"""No name that Chinese keeps, such as ReLU, is in small letters."""


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.Conv2d(3, 2, 2), nn.Flatten())


def narrow() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ReLU(), nn.Linear(3, 2))


def without_bias() -> nn.Module:
    body = (nn.Linear(16, 8, bias=False), nn.Tanh(), nn.Linear(8, 2, bias=False))
    return nn.Sequential(nn.Flatten(), *body)


def refusals(net: Callable[[], nn.Module], settings: AuditSettings) -> dict[str, str]:
    """By attacker what it says to a view of images of 4 x 4 pixels that it cannot attack; none may search."""
    drawn = torch.Generator().manual_seed(0)
    x = torch.rand(80, 1, 4, 4, generator=drawn)
    rows = Rows(x, torch.arange(80) % 2, "images", ("a", "b"))
    subject, dealt = Subject(net, rows), split(rows, settings, 0, None)
    scene = next(iter(scenes_of(subject, dealt.candidates, dealt.attacked, settings)))
    found = {}
    for attacker in ATTACKERS:
        if attacker.unfit("images", scene.rows_together) is None:
            try:
                attacker.refuses(scene.observations[0])
                attacker.run(Attempt(scene, dealt.candidates, dealt.public, 1e-9, 0, lambda part: None))
            except OutOfTimeError as error:
                assert error.needed is not None and error.needed > 1e-9
                found[attacker.name] = "lack of time"
            except (ValueError, RuntimeError) as error:
                found[attacker.name] = str(error)
    return found


@pytest.mark.parametrize("net", [convolutional, narrow, without_bias])
@pytest.mark.parametrize(
    "settings",
    [
        AuditSettings(rows=8, batch_size=1, parties=()),
        AuditSettings(rows=8, batch_size=4, parties=()),
        AuditSettings(rows=8, batch_size=2, parties=(), local_steps=2),
    ],
    ids=["one row", "batch", "two steps"],
)
def test_what_attackers_refuse_is_said_in_both_languages(
    net: Callable[[], nn.Module], settings: AuditSettings
) -> None:
    found = refusals(net, settings)
    assert found
    for why in found.values():
        said = reason({"why": why})
        assert said.en and why.startswith(said.en)
        assert said.zh != said.en and not ENGLISH.search(said.zh), why


def test_labels_that_cannot_be_read_are_told_before_time_that_is_short() -> None:
    found = refusals(narrow, AuditSettings(rows=8, batch_size=4, parties=()))
    for name in ("Gaussian prior", "Inverting Gradients"):
        assert found[name].startswith("batch_size must be at most the number of classes, 2")
        assert "\u7c7b\u522b\u6570 2" in reason({"why": found[name]}).zh
    assert found["DLG"] == "lack of time"


def test_whom_an_attacker_is_for_is_said_in_both_languages() -> None:
    for attacker in ATTACKERS:
        for kind in KINDS:
            for together in (1, 8):
                why = attacker.unfit(kind, together)
                if why is not None:
                    said = reason({"why": why})
                    assert said.en.startswith(why) and not ENGLISH.search(said.zh)


def test_time_that_was_short_is_said_with_what_is_needed_where_that_is_known() -> None:
    said = reason({"why": "lack of time", "seconds_needed": 61.0})
    assert said.en == "lack of time, takes 2 min at least" and " 2 " in said.zh
    assert reason({"why": "lack of time", "seconds_needed": None}).en == "lack of time"


def test_a_message_that_has_no_translation_is_given_as_it_is() -> None:
    said = reason({"why": "rows must be blue, got red"})
    assert said.en == "rows must be blue" and said.zh.endswith("\uff1arows must be blue")
