"""Between parties travel plain values, and nothing that arrives can have anything run."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cloudpickle
import msgpack
import numpy as np
import pandas as pd
import pytest
import torch
from fed.exceptions import FedRemoteError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from secretflow.ml.nn import metrics
from secretflow.party.messages import ALLOWED_CLASSES, MessageError, pack, unpack
from secretflow.party.proxies import _unwrap
from secretflow.security.aggregation.secagg.layout import Layout
from secretflow.security.aggregation.secagg.ring import Ring

DTYPES = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(),
    npst.unsigned_integer_dtypes(),
    npst.floating_dtypes(),
    npst.complex_number_dtypes(),
    npst.datetime64_dtypes(),
    npst.unicode_string_dtypes(),
)
ARRAYS = DTYPES.flatmap(lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, min_side=0)))
KEYS = st.one_of(st.text(), st.integers(-(2**63), 2**64 - 1), st.tuples(st.text(), st.booleans()))
LEAVES = st.one_of(st.none(), st.floats(allow_nan=False), st.binary(), KEYS)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner)
)


@given(VALUES)
def test_plain_values_arrive_as_they_were_sent(value: Any) -> None:
    assert repr(unpack(pack(value))) == repr(value)


@given(st.sets(KEYS))
def test_sets_arrive_as_they_were_sent(value: set[Any]) -> None:
    assert unpack(pack(value)) == value


@given(ARRAYS)
def test_arrays_and_their_scalars_arrive_bit_by_bit(array: np.ndarray) -> None:
    for sent in (array, array.T, *array.ravel()[:1]):
        got = unpack(pack(sent))
        assert type(got) is type(sent) and got.shape == sent.shape
        assert got.tobytes() == sent.tobytes() and got.dtype.kind == sent.dtype.kind


@given(DTYPES | st.just(np.dtype(object)))
def test_dtypes_arrive(dtype: np.dtype[Any]) -> None:
    assert unpack(pack({"column": dtype})) == {"column": dtype}


def test_metrics_tensors_and_remote_errors_arrive() -> None:
    for metric in (metrics.Mean("loss", torch.tensor(3.0), 4), metrics.Precision("p", [0.5], [1], [2])):
        got = unpack(pack(metric))
        assert type(got) is type(metric) and vars(got) == vars(metric)
    error = unpack(pack(FedRemoteError("alice", None)))
    assert isinstance(error, FedRemoteError) and str(error) == "FedRemoteError occurred at alice"
    assert isinstance(pickle.loads(pickle.dumps(error)), FedRemoteError)  # as Ray will want to


def test_the_list_names_plain_classes() -> None:
    for name in ALLOWED_CLASSES:
        module, _, attribute = name.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, type) and found.__module__ == module
        if not issubclass(found, Exception):
            assert not any(hasattr(found, hook) for hook in ("__setstate__", "__del__"))


class Stranger:
    pass


@pytest.mark.parametrize(
    "value",
    [
        Stranger(),
        Stranger,
        print,
        lambda: 1,
        np.array([None]),
        np.zeros(2, [("a", "f4")]),
        np.ma.zeros(3),
        torch.nn.Parameter(torch.zeros(2)),
        OrderedDict(a=1),
        {"deep": [(Stranger(),)]},
        Path("x"),
        ValueError("private"),
        FedRemoteError("alice", ValueError("quotes private data")),
        2**70,
        [*[[]] * 2, *[np.dtype([("a", "f4")])]],
        pd.CategoricalDtype(["private"]),
    ],
    ids=repr,
)
def test_what_is_not_on_the_list_does_not_leave(value: Any) -> None:
    with pytest.raises(MessageError) as raised:
        pack(value)
    assert "private" not in str(raised.value)


def poison(path: Path) -> bytes:
    """A pickle that makes a file when it is read by RayFed's receiver."""

    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (path,))

    return cloudpickle.dumps(Touch())


def through_rayfeds_list(path: Path) -> bytes:
    """The same through ``fed._private``, which RayFed lets through whatever its list says."""
    command = f"touch {path}".encode()
    names = [b"fed._private", b"global_context.threading._os.system"]
    strings = b"".join(b"\x8c" + bytes([len(name)]) + name for name in names)
    return b"\x80\x04" + strings + b"\x93" + b"\x8c" + bytes([len(command)]) + command + b"\x85R."


def test_a_pickle_that_would_run_something_runs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "made"
    for poisoned in (poison(target), through_rayfeds_list(target)):
        pickle.loads(poisoned)
        assert target.exists()  # it is a poison
        target.unlink()
        for wrapped in (poisoned, pickle.dumps(poisoned)):
            with pytest.raises(MessageError):
                unpack(_unwrap(wrapped))
        assert not target.exists()


def test_rayfeds_own_list_lets_it_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fed._private import serialization_utils

    monkeypatch.setattr(serialization_utils, "_pickle_whitelist", {"numpy": ["dtype"]})
    serialization_utils._restricted_loads(through_rayfeds_list(tmp_path / "made"))
    assert (tmp_path / "made").exists()


EXT = msgpack.ExtType


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        pack([1])[:-1],
        pack([1]) + b"\x00",
        msgpack.packb(EXT(99, pack([]))),
        msgpack.packb(EXT(1, pack(["O", [1], bytes(8)]))),
        msgpack.packb(EXT(1, pack(["|V8", [1], bytes(8)]))),
        msgpack.packb(EXT(1, pack(["<f4,<f4", [1], bytes(8)]))),
        msgpack.packb(EXT(1, pack(["<f4", [1], bytes(8)]))),
        msgpack.packb(EXT(1, pack(["<f4", [9], bytes(8)]))),
        msgpack.packb(EXT(1, pack(["<f4", [-1], bytes(8)]))),
        msgpack.packb(EXT(1, pack(["<f4", [2**62], bytes(8)]))),
        msgpack.packb(EXT(3, pack([1]))),
        msgpack.packb(EXT(5, pack([[1]]))),
        msgpack.packb(EXT(6, pack(["os:system", {"a": 1}]))),
        msgpack.packb(EXT(7, pack(["os:system", ["true"]]))),
        msgpack.packb(EXT(7, pack(["secretflow.ml.nn.metrics:Mean", ["loss", 1, 2]]))),
        msgpack.packb(EXT(6, pack(["secretflow.ml.nn.metrics:Mean", 3]))),
        msgpack.packb(EXT(6, pack([["secretflow.ml.nn.metrics:Mean"], {}]))),
        b"\x91" * 5000,
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        unpack(data)


@given(st.binary())
def test_whatever_bytes_come_are_a_value_or_an_error(data: bytes) -> None:
    for read in (unpack, _unwrap):
        with contextlib.suppress(MessageError):
            read(data)


@pytest.mark.parametrize("code", range(1, 8))
@pytest.mark.parametrize("depth", [40, 400, 20_000])
def test_values_nested_hundreds_of_times_do_not_end_the_process(code: int, depth: int) -> None:
    """The attack: a few thousand bytes, each level of which takes as much stack as a message."""
    data = pack([])
    for _ in range(depth):
        data = msgpack.packb(msgpack.ExtType(code, data))
    with pytest.raises(MessageError):
        unpack(data)


def test_values_nested_often_arrive_and_more_often_do_not_leave() -> None:
    value: Any = ()
    for _ in range(31):
        value = (value,)
    assert unpack(pack(value)) == value
    with pytest.raises(MessageError, match="nest its values 32 times at most"):
        pack((value,))


def test_dataclasses_travel_without_what_they_have_cached() -> None:
    layout = Layout.dense([np.zeros((2, 3)), np.zeros(4, int)], is_list=True)
    assert layout.float_places and "float_places" in vars(layout)
    got = unpack(pack(layout))
    assert vars(got).keys() == {field.name for field in dataclasses.fields(layout)}
    assert (got.shapes, got.dtypes, got.support) == (layout.shapes, layout.dtypes, layout.support)
    assert got.float_places == layout.float_places
    ring = Ring.make(32, None, 3)
    assert unpack(pack(ring)) == ring


@pytest.mark.parametrize("forged", ["digest", "places", "open"])
def test_no_message_brings_what_a_dataclass_works_out_from_its_fields(forged: str) -> None:
    layout = Layout.dense([np.zeros(4)], is_list=True)
    name = f"{Layout.__module__}:{Layout.__qualname__}"
    for content in ({**vars(layout), forged: "mine"}, {"shapes": layout.shapes}):
        with pytest.raises(MessageError):
            unpack(msgpack.packb(msgpack.ExtType(6, pack([name, content]))))
