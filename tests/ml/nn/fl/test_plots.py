"""Pictures of runs in which parties were missing, from histories made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from secretflow.ml.nn.fl.history import History
from secretflow.ml.nn.fl.plots import plot_history, plot_participants


def history_of_survivors() -> History:
    """Bob leaves after the first of two rounds, and is back in the third epoch; carol never came."""
    return History(
        global_history={
            "density": [1.0, 0.6, 0.4],
            "loss": [2.0, 1.0, 0.5],
            "val_accuracy": [0.5, 0.6, 0.7],
            "payload_bytes": [3e6, 2e6, 2e6],
        },
        local_history={
            "alice_density.fc": [1.0, 0.6, 0.4],
            "alice_round_payload_bytes": [[1e6, 1e6], [1e6, 1e6], [1e6]],
            "bob_density.fc": [math.nan, math.nan, 0.2],
            "bob_round_payload_bytes": [[1e6], [], [1e6]],
            "carol_round_payload_bytes": [[], [], []],
        },
        participants=[[["alice", "bob"], ["alice"]], [[], ["alice"]], [["bob", "alice"]]],
    )


def test_who_took_part_is_dark_in_the_row_of_the_party_and_the_column_of_the_round() -> None:
    axes = plot_participants(history_of_survivors()).axes[0]
    white = axes.get_images()[0].get_array()
    assert (~white).tolist() == [
        [True, True, False, True, True],
        [True, False, False, False, True],
        [False] * 5,
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        *("alice (4 of 5)", "bob (2 of 5)", "carol (0 of 5)")
    ]
    assert list(axes.get_yticks()) == [0, 1, 2]
    ends = [line.get_xdata()[0] for line in axes.get_lines() if line.get_color() == "tab:red"]
    assert ends == [2.5, 4.5]  # between the rounds 2 and 3, and 4 and 5


def test_a_party_of_which_nothing_else_is_known_has_a_row_too() -> None:
    history = History(global_history={}, local_history={}, participants=[[["bob"], ["bob", "alice"]]])
    axes = plot_participants(history).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["alice (1 of 2)", "bob (2 of 2)"]


def test_a_history_that_does_not_say_who_took_part_is_refused() -> None:
    for history in (
        History(global_history={}, local_history={}),
        History(global_history={}, local_history={}, participants=[]),
    ):
        with pytest.raises(ValueError, match=r"^history must have participants, .*min_survivors.*, got none"):
            plot_participants(history)


def test_a_run_in_which_parties_were_missing_is_drawn_over_all_its_rounds() -> None:
    metrics, loss, density, _ = history_of_survivors().plot().axes
    for axes in (metrics, loss, density):
        assert list(axes.get_lines()[0].get_xdata()) == [2, 4, 5]
    assert density.get_lines()[0].get_label() == "fc"
    assert list(density.get_lines()[0].get_ydata()) == pytest.approx([1.0, 0.6, 0.3])


def test_what_a_blind_server_is_told_can_be_drawn() -> None:
    history = History(
        global_history={"payload_bytes": [1e6, 2e6], "seconds": [1.0, 1.0]},
        local_history={"alice_round_payload_bytes": [[1e6], [2e6]]},
    )
    assert [len(axes.get_lines()) for axes in history.plot().axes] == [0, 0, 0, 0]


@pytest.mark.parametrize("draw", [plot_history, plot_participants])
@pytest.mark.parametrize("wrong", [None, {}, {"global_history": {}}, [1.0]], ids=str)
def test_what_is_no_history_is_refused(draw: Any, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^history must be what FLModel.fit returned, got "):
        draw(wrong)
