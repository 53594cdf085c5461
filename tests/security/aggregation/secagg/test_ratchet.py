"""The ratchet: both ends derive the same keys, each once, and no state tells of the keys before it."""

from __future__ import annotations

import copy
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretflow.security.aggregation.secagg.errors import AggregationError
from secretflow.security.aggregation.secagg.ratchet import CALLS_PER_START, Ratchet

KEY = bytes(range(32))
calls = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, unique=True).map(
    lambda pairs: [start * CALLS_PER_START + place for start, place in sorted(pairs)]
)


@given(calls, st.data())
def test_both_ends_derive_the_same_keys_whatever_calls_one_of_them_has_missed(
    numbers: list[int], data: st.DataObject
) -> None:
    one, other = Ratchet(KEY), Ratchet(KEY)
    keys = {number: one.key_of(number) for number in numbers}
    met = data.draw(st.lists(st.sampled_from(numbers), unique=True)) or numbers[-1:]
    assert {number: other.key_of(number) for number in sorted(met)} == {n: keys[n] for n in met}
    assert len(set(keys.values())) == len(keys)


@given(calls)
def test_a_state_holds_no_key_of_a_call_before_it_and_gives_none(numbers: list[int]) -> None:
    ratchet = Ratchet(KEY)
    spent = [ratchet.key_of(number) for number in numbers]
    stolen = copy.deepcopy(ratchet)
    assert KEY not in vars(stolen).values() and not set(spent) & set(map(repr, vars(stolen).values()))
    for number in numbers:
        with pytest.raises(AggregationError, match="forgotten"):
            stolen.key_of(number)
    last = numbers[-1]
    later = [stolen.key_of(last + k) for k in range(1, 5)]
    later += [stolen.key_of((last // CALLS_PER_START + k) * CALLS_PER_START) for k in range(1, 5)]
    assert not set(later) & set(spent)


def test_the_keys_are_those_of_the_chain_that_the_docstring_names() -> None:
    def derived(key: bytes, label: bytes) -> bytes:
        return hmac.digest(key, label, "sha256")

    second_start = derived(derived(KEY, b"next start"), b"calls of a start")
    expected = derived(derived(derived(second_start, b"next call"), b"next call"), b"key of a call")
    assert Ratchet(KEY).key_of(CALLS_PER_START + 2) == expected


def test_a_number_far_off_is_refused_instead_of_waited_for() -> None:
    for number in (2**21, 2**21 * CALLS_PER_START):
        with pytest.raises(AggregationError, match="too far beyond"):
            Ratchet(KEY).key_of(number)
