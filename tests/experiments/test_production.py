"""The settings of the example of a training over the network."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.production import TrainingSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": "many"}, "rows must be a whole number from 1 up, got 'many'"),
        ({"epochs": 0}, "epochs must be a whole number from 1 up, got 0"),
        ({"seed": True}, "seed must be a whole number from 0 up, got True"),
        ({"rows": 8, "batch_size": 9}, "batch_size must be at most rows, 8, got 9"),
        ({"prune_end_rate": 7}, "prune_end_rate"),
        ({"server_blind": "yes"}, "server_blind must be true or false, got 'yes'"),
    ],
)
def test_what_must_hold_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**settings)


def test_a_setting_that_is_none_is_named() -> None:
    with pytest.raises(TypeError, match="rounds"):
        TrainingSettings(**{"rounds": 3})
