"""What may travel between parties, and as which bytes.

Messages are MessagePack: data, of which the reader makes values itself. There is no pickle in them, so no
message can name a function to call. RayFed's own list of what may be unpickled does not suffice: it lets all
of ``fed._private`` through, and from there one reaches the operating system.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from functools import partial
from typing import Any

import msgpack
import numpy as np

ALLOWED_CLASSES = (
    "fed.exceptions:FedRemoteError",
    "secretflow.ml.nn.fl.metric_sums:Sums",
    "secretflow.ml.nn.metrics:AUC",
    "secretflow.ml.nn.metrics:Default",
    "secretflow.ml.nn.metrics:Mean",
    "secretflow.ml.nn.metrics:Precision",
    "secretflow.ml.nn.metrics:Recall",
    "secretflow.security.aggregation.secagg.layout:Layout",
    "secretflow.security.aggregation.secagg.opening:Opening",
    "secretflow.security.aggregation.secagg.ring:Ring",
)
"""Classes, as ``module:class``, whose instances training and the aggregator send.

They are plain values: reading one sets its attributes and runs nothing of it. Beside them travel None, bool,
int of 64 bits, float, str, bytes, list, tuple, dict, set, numpy arrays and scalars of numbers, bools,
strings and times, numpy's dtypes, and torch tensors (without gradient, on the CPU).
"""

_ARRAY, _SCALAR, _TENSOR, _TUPLE, _SET, _INSTANCE, _ERROR, _KIND = range(1, 9)
_MOST_DEPTH = 32
"""Of tuples, sets, arrays and instances in each other. Each takes stack; hundreds would end the process."""

_DTYPE = re.compile(r"[<>|][biufcSUmM][0-9]+(\[[0-9A-Za-z]+\])?")
"""Numbers, bools, strings and times: no objects and no structures."""


class MessageError(TypeError):
    """A value must not travel between parties, or bytes are no message."""


def pack(value: Any) -> bytes:
    """A value as bytes. What is found in it twice travels twice.

    Raises:
        MessageError: something in it must not travel; the message names its type.
    """
    return _packed(value, 0)


def _packed(value: Any, depth: int) -> bytes:
    _check_depth(depth)
    try:
        return msgpack.packb(value, default=partial(_extend, depth=depth + 1), strict_types=True)
    except (ValueError, OverflowError) as error:
        raise MessageError(
            f"a message must be of plain values, got one of which msgpack says: {error}"
        ) from None


def unpack(data: bytes) -> Any:
    """The value that :func:`pack` has made into bytes. Arrays are read-only.

    Raises:
        MessageError: it makes no such bytes.
    """
    return _unpacked(data, 0)


def _unpacked(data: bytes, depth: int) -> Any:
    _check_depth(depth)
    try:
        return msgpack.unpackb(data, ext_hook=partial(_restore, depth=depth + 1), strict_map_key=False)
    except Exception as error:  # whatever hostile bytes bring about; only its type, they may quote anything
        raise MessageError(
            f"what arrives must be a message, got bytes that end in {type(error).__name__}"
        ) from None


def _check_depth(depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise MessageError(f"a message must nest its values {_MOST_DEPTH} times at most")


def _extend(value: Any, depth: int) -> msgpack.ExtType:
    kind, name = type(value), f"{type(value).__module__}:{type(value).__qualname__}"
    if kind is np.ndarray or isinstance(value, np.generic):
        array = value if kind is np.ndarray else np.array([value]).reshape(())
        if not _DTYPE.fullmatch(array.dtype.str):
            raise MessageError(
                f"an array that travels must hold numbers, strings or times, got {array.dtype}"
            )
        code = _ARRAY if kind is np.ndarray else _SCALAR
        return msgpack.ExtType(code, _packed([array.dtype.str, list(array.shape), array.tobytes()], depth))
    if isinstance(value, np.dtype):
        _check_kind(value.str)
        return msgpack.ExtType(_KIND, _packed(value.str, depth))
    if name == "torch:Tensor":
        return msgpack.ExtType(_TENSOR, _packed(value.detach().cpu().numpy(), depth))
    if kind is tuple:
        return msgpack.ExtType(_TUPLE, _packed(list(value), depth))
    if kind is set:
        return msgpack.ExtType(_SET, _packed(list(value), depth))
    if name in ALLOWED_CLASSES:
        if isinstance(value, Exception):
            return msgpack.ExtType(_ERROR, _packed([name, list(value.args)], depth))
        return msgpack.ExtType(_INSTANCE, _packed([name, _state(value)], depth))
    raise MessageError(
        f"{name.replace(':', '.')} must not travel between parties: send numpy arrays, numbers, strings, "
        "lists, tuples or dictionaries"
    )


def _state(value: Any) -> dict[str, Any]:
    """What an instance holds, without what a dataclass has only cached."""
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return vars(value)


def _check_kind(dtype: str) -> None:
    """A data frame says of what its columns are, "|O" of text: as a name of a dtype, not of an array."""
    if dtype != "|O" and not _DTYPE.fullmatch(dtype):
        raise MessageError(f"a dtype that travels must be of numbers, strings, times or objects, got {dtype}")


def _restore(code: int, data: bytes, depth: int) -> Any:
    parts = _unpacked(data, depth)
    if code == _KIND:
        _check_kind(parts)
        return np.dtype(parts)
    if code in (_ARRAY, _SCALAR):
        array = _array(*parts)
        return array if code == _ARRAY else array[()]
    if code == _TENSOR and isinstance(parts, np.ndarray):
        import torch

        return torch.tensor(parts)
    if code == _TUPLE:
        return tuple(parts)
    if code == _SET:
        return set(parts)
    name, content = parts
    if name not in ALLOWED_CLASSES or code not in (_INSTANCE, _ERROR):
        raise MessageError("a class that travels must be allowed")
    module, _, attribute = name.partition(":")
    allowed: type[Any] = getattr(importlib.import_module(module), attribute)
    if code == _ERROR and issubclass(allowed, Exception):
        return allowed(*content)
    if dataclasses.is_dataclass(allowed) and set(content) != {f.name for f in dataclasses.fields(allowed)}:
        raise MessageError("what travels of a class must be its fields, or it could bring what is worked out")
    made = object.__new__(allowed)
    vars(made).update(content)
    return made


def _array(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if not _DTYPE.fullmatch(dtype) or not all(type(size) is int and size >= 0 for size in shape):
        raise MessageError("an array that travels must hold numbers, strings or times, and have a shape")
    array: np.ndarray = np.ndarray(shape, dtype, buffer=data)
    if array.nbytes != len(data):
        raise MessageError("an array that travels must be as large as it says")
    return array
