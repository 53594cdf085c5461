"""Payloads: what does not belong together is never added up."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.message import Message, add_up
from secretflow.security.aggregation.secagg.server import Server


def message(call: int = 1, **changes: Any) -> Message:
    body = [np.array([1, 2**32 - 1], "<u4"), np.array([2**64 - 1], "<u8")]
    changed: Any = {"call": call, "layout": "f", "encoding": "e", "body": body, **changes}
    return Message(**changed)


def test_payloads_of_one_call_are_added_in_the_ring_and_stay_as_they_were() -> None:
    parts = [message(), message(), message()]
    total = add_up(parts)
    assert total["body"][0].tolist() == [3, 2**32 - 3] and total["body"][1].tolist() == [2**64 - 3]
    assert (total["call"], total["layout"], total["encoding"]) == (1, "f", "e")
    assert parts[0]["body"][0].tolist() == [1, 2**32 - 1]


def test_no_more_than_two_payloads_are_held_while_they_come() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def coming() -> Iterator[Message]:
        nonlocal most
        for _ in range(20):
            one = message()
            alive.append(weakref.ref(one["body"][0]))
            most = max(most, sum(known() is not None for known in alive))
            yield one
            del one

    add_up(coming())
    assert most == 2


@pytest.mark.parametrize("changes", [{"call": 2}, {"layout": "g"}, {"encoding": "x"}])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_payloads_of_another_call_layout_or_encoding_are_refused(
    changes: dict[str, Any], position: int
) -> None:
    parts = [message(), message(), message()]
    parts[position] = message(**changes)
    with pytest.raises(AggregationError, match=f"differ in {next(iter(changes))}"):
        add_up(parts)


def test_payloads_of_another_size_are_refused() -> None:
    with pytest.raises(AggregationError, match="differ in size"):
        add_up([message(), message(body=[np.zeros(1, "<u4"), np.zeros(1, "<u8")])])
    with pytest.raises(AggregationError, match="differ in size"):
        add_up([message(), message(body=[np.zeros(2, "<u4")])])


@pytest.mark.parametrize("position", [0, 1, 2])
def test_payloads_of_other_types_are_refused(position: int) -> None:
    parts = [message(), message(), message()]
    parts[position] = message(body=[np.zeros(2, "<u8"), np.zeros(1, "<u8")])
    with pytest.raises(AggregationError, match="differ in dtype"):
        add_up(parts)


def test_the_server_adds_a_call_once_and_never_an_older_one() -> None:
    server = Server()
    server.add(message(3), message(3))
    for call in (3, 2):
        with pytest.raises(AggregationError, match=f"call {call} is not larger than the last one added, 3"):
            server.add(message(call), message(call))
    assert server.add(message(5), message(5))["call"] == 5


def test_a_refused_call_leaves_the_server_ready_for_the_next() -> None:
    server = Server()
    with pytest.raises(AggregationError):
        server.add(message(1), message(1, layout="g"))
    assert server.add(message(2), message(2))["call"] == 2
