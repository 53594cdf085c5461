"""Layers and nets for property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secretflow.ml.nn.fl.pruning import Mask, Structure
from secretflow.ml.nn.fl.pruning.structure import Axis, UnitGroup

WEIGHTS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=6), elements=st.floats(-4, 4, width=32)
)


@st.composite
def layers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    weight = draw(WEIGHTS)
    mask = draw(hnp.arrays(np.uint8, weight.shape, elements=st.integers(0, 1)))
    return weight, mask


@st.composite
def nets(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Weights, masks under which each layer lives, and gradients; many weights are equal."""
    values = st.floats(-2, 2, width=16) | st.just(0.5)
    weights = draw(
        st.lists(
            hnp.arrays(np.float32, hnp.array_shapes(max_side=8), elements=values), min_size=1, max_size=4
        )
    )
    masks = [draw(hnp.arrays(np.uint8, weight.shape, elements=st.integers(0, 1))) for weight in weights]
    for mask in masks:
        mask.reshape(-1)[draw(st.integers(0, mask.size - 1))] = 1
    gradients = [draw(hnp.arrays(np.float32, weight.shape, elements=values)) for weight in weights]
    return weights, masks, gradients


@st.composite
def chains(draw: st.DrawFn) -> tuple[Structure, Mask]:
    """Layers one behind the other, and the mask under which all their units live.

    Each reads the units of the one before, some of them several times, as after a flattening, and has its
    own at one or two positions.
    """
    sizes = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    groups: list[UnitGroup] = []
    mask: Mask = {}
    width = draw(st.integers(1, 4))
    for k, size in enumerate(sizes):
        rows = np.repeat(np.arange(size), draw(st.integers(1, 2)))
        columns = np.repeat(np.arange(size), draw(st.integers(1, 3)))
        made, read = Axis(f"w{k}", 0, rows), Axis(f"w{k + 1}", 1, columns)
        groups.append(UnitGroup(f"w{k}", size, (made,), (read,), (Axis(f"b{k}", 0, rows),)))
        mask[f"w{k}"] = np.ones((len(rows), width, draw(st.integers(1, 2))), np.uint8)
        width = len(columns)
    mask[f"w{len(sizes)}"] = np.ones((3, width), np.uint8)
    return tuple(groups), mask
