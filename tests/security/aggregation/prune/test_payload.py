"""Payloads: what does not belong together is never added up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secretflow.security.aggregation.prune.errors import AggregationError
from secretflow.security.aggregation.prune.payload import Payload, add_up
from secretflow.security.aggregation.prune.server import Adder


def payload(call: int = 1, **changes: Any) -> Payload:
    body = [np.array([1, 2**32 - 1], "<u4"), np.array([2**64 - 1], "<u8")]
    changed: Any = {"call": call, "frame": "f", "encoding": "e", "body": body, **changes}
    return Payload(**changed)


def test_payloads_of_one_call_are_added_in_the_ring_and_stay_as_they_were() -> None:
    parts = [payload(), payload(), payload()]
    total = add_up(parts)
    assert total["body"][0].tolist() == [3, 2**32 - 3] and total["body"][1].tolist() == [2**64 - 3]
    assert (total["call"], total["frame"], total["encoding"]) == (1, "f", "e")
    assert parts[0]["body"][0].tolist() == [1, 2**32 - 1]


@pytest.mark.parametrize("changes", [{"call": 2}, {"frame": "g"}, {"encoding": "x"}])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_payloads_of_another_call_frame_or_encoding_are_refused(
    changes: dict[str, Any], position: int
) -> None:
    parts = [payload(), payload(), payload()]
    parts[position] = payload(**changes)
    with pytest.raises(AggregationError, match=f"differ in {next(iter(changes))}"):
        add_up(parts)


def test_payloads_of_another_size_are_refused() -> None:
    with pytest.raises(AggregationError, match="differ in size"):
        add_up([payload(), payload(body=[np.zeros(1, "<u4"), np.zeros(1, "<u8")])])
    with pytest.raises(AggregationError, match="differ in size"):
        add_up([payload(), payload(body=[np.zeros(2, "<u4")])])


def test_the_server_adds_a_call_once_and_never_an_older_one() -> None:
    adder = Adder()
    adder.add(payload(3), payload(3))
    for call in (3, 2):
        with pytest.raises(AggregationError, match=f"call {call} is not larger than the last one added, 3"):
            adder.add(payload(call), payload(call))
    assert adder.add(payload(5), payload(5))["call"] == 5


def test_a_refused_call_leaves_the_server_ready_for_the_next() -> None:
    adder = Adder()
    with pytest.raises(AggregationError):
        adder.add(payload(1), payload(1, frame="g"))
    assert adder.add(payload(2), payload(2))["call"] == 2
