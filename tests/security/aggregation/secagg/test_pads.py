"""Pads: one AES-256-CTR key stream for each key and call, whatever the arrays look like."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from secretflow.security.aggregation.secagg import pads
from secretflow.security.aggregation.secagg.pads import Pads

KEY = bytes(range(32))
PIECE = pads._PIECE_BYTES


def key_stream(key: bytes, call: int, size: int) -> bytes:
    """Counter mode written out: the encryption of (call, 2), (call, 3), ... with bare AES."""
    counters = b"".join(call.to_bytes(12, "big") + (k + 2).to_bytes(4, "big") for k in range(-(-size // 16)))
    return Cipher(AES(key), ECB()).encryptor().update(counters)[:size]


def added_to(body: list[np.ndarray], drawn: Pads) -> list[np.ndarray]:
    for part in body:
        drawn.add_to(part)
    return body


def pad_of(sizes_and_dtypes: list[tuple[int, str]], key: bytes = KEY, call: int = 7) -> bytes:
    body = added_to([np.zeros(size, dtype) for size, dtype in sizes_and_dtypes], Pads([(key, False)], call))
    return b"".join(part.tobytes() for part in body)


def test_a_pad_is_what_openssl_says() -> None:
    # head -c 32 /dev/zero | openssl enc -aes-256-ctr -K 000102..1f -iv 00000000000000000000000700000002
    known = "e06d131f17175efac45fef2f3354b1647b00c0866b6525e6c5ea85e1965fbf9d"
    assert pad_of([(8, "<u4")], call=7).hex() == known


def test_a_pad_is_the_published_key_stream() -> None:
    # McGrew and Viega, "The Galois/Counter Mode of Operation", test case 14: all zeros encrypted.
    assert pad_of([(4, "<u4")], key=bytes(32), call=0).hex() == "cea7403d4d606b6e074ec5d3baf39d18"


@pytest.mark.parametrize("call", [0, 1, 2**32, 2**64 - 1])
def test_a_pad_is_the_key_stream_of_its_call(call: int) -> None:
    assert pad_of([(1000, "<u4")], call=call) == key_stream(KEY, call, 4000)


@pytest.mark.parametrize(
    "size", [PIECE - 8, PIECE - 1, PIECE, PIECE + 1, PIECE + 8, 2 * PIECE, 2 * PIECE + 3]
)
@pytest.mark.parametrize("dtype", ["<u1", "<u4", "<u8"])
def test_pieces_do_not_show_in_the_stream(size: int, dtype: str) -> None:
    elements = -(-size // np.dtype(dtype).itemsize)
    assert pad_of([(elements, dtype)]) == key_stream(KEY, 7, elements * np.dtype(dtype).itemsize)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["<u1", "<u4", "<u8"])), min_size=1, max_size=6)
)
def test_one_stream_runs_through_arrays_of_mixed_types(parts: list[tuple[int, str]]) -> None:
    size = sum(count * np.dtype(dtype).itemsize for count, dtype in parts)
    assert pad_of(parts) == key_stream(KEY, 7, size)


def test_one_stream_runs_on_after_a_piece_boundary_in_a_former_array() -> None:
    parts = [(PIECE // 4 + 1, "<u4"), (3, "<u1"), (PIECE // 8 + 1, "<u8")]
    assert pad_of(parts) == key_stream(KEY, 7, PIECE + 4 + 3 + PIECE + 8)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["<u1", "<u4", "<u8"]), st.integers(0, 50))
def test_the_two_signs_cancel(seed: int, dtype: str, size: int) -> None:
    top = np.iinfo(dtype).max
    numbers = np.random.default_rng(seed).integers(0, top, size, dtype=np.dtype(dtype).type, endpoint=True)
    mine, theirs = numbers.copy(), numbers.copy()
    Pads([(KEY, False)], 3).add_to(mine)
    Pads([(KEY, True)], 3).add_to(theirs)
    np.testing.assert_array_equal(mine + theirs, numbers + numbers)


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.sampled_from(["<u1", "<u4", "<u8"]))
def test_several_pads_are_the_sum_of_each(signs: list[bool], dtype: str) -> None:
    keys = [(bytes([k]) * 32, sign) for k, sign in enumerate(signs)]
    together, one_by_one = np.zeros(50, dtype), np.zeros(50, dtype)
    Pads(keys, 5).add_to(together)
    for key in keys:
        Pads([key], 5).add_to(one_by_one)
    np.testing.assert_array_equal(together, one_by_one)


def test_no_pad_adds_nothing_of_what_was_in_memory() -> None:
    used = [np.full(4 * PIECE, 0xA5, np.uint8) for _ in range(20)]
    between = np.ones(4 * PIECE, np.uint8)  # what is freed below stays this process's
    del used
    assert not np.any(added_to([np.zeros(PIECE, np.uint8)], Pads([], 1))[0])
    assert between.all()


def test_other_calls_and_other_keys_give_other_pads() -> None:
    streams = [
        pad_of([(64, "<u4")], key, call) for key in (KEY, KEY[::-1]) for call in (0, 1, 2, 2**32, 2**63)
    ]
    # Not one block in common, either: that would be the same pad further on.
    blocks = [stream[k : k + 16] for stream in streams for k in range(0, len(stream), 16)]
    assert len(set(blocks)) == len(blocks)
