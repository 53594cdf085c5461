"""A party gives up where it hears nothing of the server, and is more patient where others are busy."""

from __future__ import annotations

import pytest

from secretflow.ml.nn.fl.worker.absence import Absence
from secretflow.security.aggregation.secagg.errors import (
    AggregationError,
    ChannelClosedError,
    DroppedOutError,
    RegroupError,
)

WAIT, PATIENCE = 5.0, 25.0


def test_a_party_gives_up_when_it_has_heard_nothing_of_the_server_for_as_long_as_was_said() -> None:
    absence = Absence(WAIT, PATIENCE)
    error = ChannelClosedError("broken")
    assert [absence.is_too_long(error, now) for now in (100.0, 104.0, 105.0, 105.1)] == [False] * 3 + [True]


@pytest.mark.parametrize("error", [RegroupError("a party comes"), DroppedOutError("too slow")])
def test_it_does_not_while_the_server_answers_and_others_are_busy(error: AggregationError) -> None:
    absence = Absence(WAIT, PATIENCE)
    assert not absence.is_too_long(ChannelClosedError("broken"), 100.0)
    assert not absence.is_too_long(error, 108.0)
    assert not absence.is_too_long(ChannelClosedError("broken again"), 112.0)
    assert not absence.is_too_long(error, 125.0)
    assert absence.is_too_long(error, 125.1)


def test_the_time_begins_anew_with_the_next_loss() -> None:
    absence = Absence(WAIT, PATIENCE)
    assert not absence.is_too_long(RegroupError("a party comes"), 100.0)
    absence.end()
    assert not absence.is_too_long(RegroupError("a party comes"), 200.0)
