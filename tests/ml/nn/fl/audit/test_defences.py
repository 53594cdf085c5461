import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from secretflow.ml.nn.fl.audit.defences import (
    magnitude_mask,
    round_stochastically,
    sparsify,
    support,
    through_dp,
)
from secretflow.security.privacy import DPStrategyFL
from secretflow.security.privacy.mechanism.mechanism_fl import GaussianModelDP

RATES = st.floats(0, 0.99)


def arrays(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in ((7, 9), (7,), (2, 3, 3))]


def net_with_what_training_does_not_prune():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(32, 30), nn.Bilinear(3, 3, 2))


def weights_of(net, seed):
    torch.manual_seed(seed)
    return {name: torch.rand_like(value) - 0.5 for name, value in net().state_dict().items()}


@settings(deadline=None)
@given(percent=st.integers(0, 99), seed=st.integers(0, 1000))
def test_an_attacked_net_is_pruned_as_training_prunes(percent, seed):
    """Layers that training leaves alone live, the whole is rounded down, and each layer keeps one."""
    pruned, net = percent / 100, net_with_what_training_does_not_prune
    weights = weights_of(net, seed)
    before = {name: value.clone() for name, value in weights.items()}
    mask = magnitude_mask(net, weights, pruned)
    assert mask.keys() == {"0.weight", "2.weight"}
    sizes = {name: weights[name].numel() for name in mask}
    counts = {name: int(entry.sum()) for name, entry in mask.items()}
    assert sum(counts.values()) == max(len(counts), sum(sizes.values()) * (100 - percent) // 100)
    for name, entry in mask.items():
        assert abs(counts[name] - sizes[name] * (1 - pruned)) <= len(sizes)
        magnitude, lives = weights[name].abs(), entry == 1
        assert lives.all() or magnitude[lives].min() >= magnitude[~lives].max()
    assert all(torch.equal(weights[name], value) for name, value in before.items())


def test_a_part_that_is_no_whole_number_of_weights_is_rounded_as_in_training():
    """What lives is rounded down over all layers, where rounding each layer to the nearest keeps one more."""
    mask = magnitude_mask(
        net_with_what_training_does_not_prune, weights_of(net_with_what_training_does_not_prune, 1), 0.02
    )
    assert sum(int(entry.sum()) for entry in mask.values()) == 1011 < round(72 * 0.98) + round(960 * 0.98)


@given(rate=RATES, seed=st.integers(0, 1000))
def test_sparsifying_keeps_the_largest_of_all_arrays_together(rate, seed):
    upload = arrays(seed)
    flat = torch.cat([array.flatten() for array in upload])
    sent = torch.cat([array.flatten() for array in sparsify(upload, rate)])
    there = sent != 0
    assert there.sum() == max(1, round(flat.numel() * (1 - rate)))
    assert torch.equal(sent[there], flat[there])
    assert there.all() or flat[there].abs().min() >= flat[~there].abs().max()


def dp(multiplier, clip, **options):
    return DPStrategyFL(GaussianModelDP(multiplier, num_clients=1, l2_norm_clip=clip, **options))


def test_noise_is_what_upstreams_dp_strategy_makes_of_the_upload():
    upload = [array * 3 for array in arrays()]
    noisy = through_dp(upload, dp(0.3, 2.0), seed=4)
    np.random.seed(4)
    expected = dp(0.3, 2.0).model_gdp([array.numpy() for array in upload])
    for ours, theirs in zip(noisy, expected, strict=True):
        assert ours.dtype == torch.float32
        np.testing.assert_allclose(ours, theirs)


def test_without_noise_an_upload_is_clipped_by_its_norm_over_all_arrays():
    upload = [torch.tensor([3.0]), torch.tensor([[4.0]])]
    assert [array.item() for array in through_dp(upload, dp(0.0, 1.0), 0)] == pytest.approx([0.6, 0.8])
    assert [array.item() for array in through_dp(upload, dp(0.0, 6.0), 0)] == [3, 4]


def test_noise_has_its_own_seed_and_leaves_everybody_elses_numbers_alone():
    np.random.seed(1)
    expected = np.random.rand(3)
    np.random.seed(1)
    one, same, other = (through_dp(arrays(), dp(1.0, 1.0), seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(np.random.rand(3), expected)
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize(
    "strategy", [DPStrategyFL(), dp(1.0, 1.0, is_secure_generator=True)], ids=["none", "secure"]
)
def test_noise_without_a_seed_is_refused_by_name(strategy):
    with pytest.raises(ValueError, match="model_gdp"):
        through_dp(arrays(), strategy, 0)


def test_the_support_is_where_something_was_sent():
    assert support([torch.tensor([0.0, -2.0])], ["a"])["a"].tolist() == [0, 1]


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_out_of_range_are_refused_by_name(rate):
    with pytest.raises(ValueError, match="pruned"):
        magnitude_mask(net_with_what_training_does_not_prune, {}, rate)
    with pytest.raises(ValueError, match="dropped"):
        sparsify(arrays(), rate)


def test_rounding_is_right_on_average_and_never_a_step_away():
    upload = arrays()
    draws = [round_stochastically(upload, 4, seed) for seed in range(400)]
    for k, array in enumerate(upload):
        step = float(array.abs().max()) / 7
        found = torch.stack([draw[k] for draw in draws])
        assert float((found - array).abs().max()) <= step * (1 + 1e-5)
        torch.testing.assert_close(found / step, (found / step).round(), rtol=0, atol=1e-4)
        torch.testing.assert_close(found.mean(dim=0), array, rtol=0, atol=0.15 * step)
        deviation = float((found - array).square().mean().sqrt()) / float(array.abs().max())
        assert deviation == pytest.approx((1 / 7) / 6**0.5, rel=0.15)


def test_rounding_keeps_zeros_and_the_largest_entry():
    found = round_stochastically([torch.tensor([0.0, 0.5, -2.0]), torch.zeros(3)], 2, seed=0)
    assert found[0][0] == 0 and found[0][2] == -2 and not found[1].any()
    with pytest.raises(ValueError, match="bits must be an integer of at least 2"):
        round_stochastically([torch.zeros(3)], 1)
