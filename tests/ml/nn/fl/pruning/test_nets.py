"""Steps over all layers of a net come to the end rate, and no layer dies."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secretflow.ml.nn.fl.pruning import (
    PruneSettings,
    prune_over_layers,
    pruned_masks,
)

from .strategies import nets


def named(arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"layer {k}": array for k, array in enumerate(arrays)}


SETTINGS = st.builds(
    PruneSettings,
    prune_end_rate=st.floats(0.01, 1),
    prune_percent=st.floats(0.5, 99),
    prune_scope=st.sampled_from(["layer", "global"]),
    regrow_percent=st.sampled_from([0.0, 0.0, 10.0, 60.0]),
    prune_criterion=st.sampled_from(["magnitude", "snip"]),
) | st.builds(
    PruneSettings,
    prune_end_rate=st.floats(0.01, 1),
    prune_scope=st.sampled_from(["layer", "global"]),
    prune_schedule=st.just("cubic"),
    prune_start_epoch=st.just(1),
    prune_end_epoch=st.integers(2, 6),
    prune_criterion=st.sampled_from(["magnitude", "snip", "lamp"]),
)


@given(nets(), SETTINGS)
def test_steps_lead_every_net_to_the_end_rate_and_no_layer_dies(
    net: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]], settings: PruneSettings
) -> None:
    weights, masks, gradients = map(named, net)
    size, before = sum(m.size for m in masks.values()), sum(int(m.sum()) for m in masks.values())
    end = min(before, max(len(masks), int(np.floor(settings.prune_end_rate * size + 1e-9))))
    epoch = settings.prune_start_epoch
    for _ in range(600):
        epoch += 1
        new = pruned_masks(weights, masks, settings, epoch, gradients)
        living = sum(int(mask.sum()) for mask in new.values())
        assert new.keys() == masks.keys()
        assert all(mask.sum() >= 1 and mask.shape == masks[name].shape for name, mask in new.items())
        assert end <= living <= before
        if not settings.regrow_percent:
            assert all((mask <= masks[name]).all() for name, mask in new.items())
        if living == end:
            return
        assert settings.prune_schedule == "cubic" or living < before, "every step makes progress"
        masks, before = new, living
    raise AssertionError("never came to the end")


@given(nets(), st.integers(0, 300))
def test_over_layers_the_smallest_go_but_the_largest_of_each_layer_stays(
    net: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]], keep: int
) -> None:
    weights, masks, _ = net
    living = sum(int(mask.sum()) for mask in masks)
    new = prune_over_layers(weights, masks, keep)
    assert sum(int(mask.sum()) for mask in new) == max(len(masks), min(keep, living))
    removed, spared = [], []
    for weight, old, mask in zip(weights, masks, new, strict=True):
        magnitudes = np.abs(weight)
        assert magnitudes[mask == 1].max() == magnitudes[old == 1].max()
        removed += magnitudes[(old == 1) & (mask == 0)].tolist()
        spared += np.sort(magnitudes[mask == 1])[:-1].tolist()
    assert not removed or not spared or max(removed) <= min(spared)


def test_over_layers_a_small_layer_of_large_weights_is_spared() -> None:
    small, large = np.full((2, 2), 5.0), np.linspace(0.1, 1, 100).reshape(10, 10)
    masks = prune_over_layers([small, large], [np.ones((2, 2), np.uint8), np.ones((10, 10), np.uint8)], 14)
    assert masks[0].all() and masks[1].sum() == 10 and masks[1].ravel()[-10:].all()
