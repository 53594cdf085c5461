"""The sparse file: what comes back, how large it is, and what is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from secretflow.ml.nn.fl.sparse_model import export_sparse, load_sparse

DTYPES = st.sampled_from(
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool]
)


@st.composite
def state_dicts(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    state = {}
    for k in range(draw(st.integers(0, 4))):
        shape = draw(st.lists(st.integers(0, 7), max_size=3))
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        living = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
        numbers = torch.randn(shape, generator=generator) * 10
        state[f"layer{k}.weight"] = (numbers * living).to(draw(DTYPES))
    return state


@given(state_dicts())
def test_the_same_comes_back(state: dict[str, torch.Tensor]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sub" / "model.safetensors"
        export_sparse(state, path)
        back = load_sparse(path)
        assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]
    assert list(back) == list(state)
    for name, value in state.items():
        assert back[name].dtype == value.dtype and back[name].shape == value.shape
        assert torch.equal(back[name], value)


def test_nan_infinity_and_shared_weights_come_back_and_negative_zeros_are_zeros(tmp_path: Path) -> None:
    weight = torch.zeros(10, 10)
    weight[0, :4] = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0])
    export_sparse({"a": weight, "b": weight, "c": weight.t()[3:]}, tmp_path / "model")
    back = load_sparse(tmp_path / "model")
    torch.testing.assert_close(back["a"], weight, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(back["b"], weight, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(back["c"], weight.t()[3:])
    assert not torch.signbit(back["a"][0, 3])


@pytest.mark.parametrize("rate", [1.0, 0.6, 0.3, 0.1, 0.05])
def test_the_file_is_private_and_takes_four_bytes_a_living_weight_and_a_bit_for_each(
    tmp_path: Path, rate: float
) -> None:
    size = 100_000
    living = int(size * rate)
    weight = torch.zeros(size)
    weight[torch.randperm(size, generator=torch.Generator().manual_seed(0))[:living]] = 1.5
    export_sparse({"weight": weight.view(100, 1000)}, tmp_path / "model")
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o600
    expected = min(4 * size, 4 * living + size // 8)
    assert expected < (tmp_path / "model").stat().st_size < expected + 1000


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    weight = torch.zeros(2, 6)
    weight[0, 1], weight[1, 4] = 2.0, 3.0
    export_sparse({"fc.weight": weight, "fc.bias": torch.ones(2)}, tmp_path / "model")
    arrays = load_file(tmp_path / "model")
    assert arrays["fc.weight.values"].tolist() == [2.0, 3.0]
    assert arrays["fc.weight.bitmap"].tolist() == [1 << 1, 1 << 2]  # flat positions 1 and 10
    assert arrays["fc.bias"].tolist() == [1.0, 1.0]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def _foreign(path: Path) -> None:
    save_file({"weight": torch.ones(3)}, path)


def _text(path: Path) -> None:
    path.write_text("not a model")


def _without_values(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({"weight.bitmap": torch.zeros(13, dtype=torch.uint8)}, path, metadata=metadata)


def _one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # within the last number
    path.write_bytes(content)


def _other_header(old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = path.read_bytes()
        assert content.count(old) == 1 and len(old) == len(new)
        path.write_bytes(content.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_other_header(b'"dtype":"F32"', b'"dtype":"I32"'), "is damaged"),
        (_cut, "damaged or no safetensors file"),
        (_text, "damaged or no safetensors file"),
        (_foreign, "of format None"),
        (_without_values, "is damaged"),
        (_one_bit, "is damaged"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    weight = torch.zeros(10, 10)
    weight[3, 3] = 1.0
    export_sparse({"weight": weight}, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        load_sparse(tmp_path / "model")


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: Any) -> None:
    export_sparse({"weight": torch.ones(3)}, tmp_path / "model")
    with pytest.raises(TypeError, match=r"state_dict\['weight'\] must be a tensor, got 'no tensor'"):
        export_sparse({"weight": "no tensor"}, tmp_path / "model")  # type: ignore[dict-item]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    assert torch.equal(load_sparse(tmp_path / "model")["weight"], torch.ones(3))
