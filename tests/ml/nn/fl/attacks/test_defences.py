import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secretflow.ml.nn.fl.attacks.defences import magnitude_mask, sparsify, support, through_dp, withhold
from secretflow.security.privacy import DPStrategyFL
from secretflow.security.privacy.mechanism.mechanism_fl import GaussianModelDP

RATES = st.floats(0, 0.99)


def arrays(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in ((7, 9), (7,), (2, 3, 3))]


@given(pruned=RATES, seed=st.integers(0, 1000))
def test_of_each_layer_the_largest_weights_live_and_biases_are_left_alone(pruned, seed):
    weights = dict(zip("abc", arrays(seed), strict=True))
    mask = magnitude_mask(weights, pruned)
    assert mask.keys() == {"a", "c"}
    for name, entry in mask.items():
        magnitude, lives = weights[name].abs(), entry == 1
        assert lives.sum() == max(1, round(entry.numel() * (1 - pruned)))
        assert lives.all() or magnitude[lives].min() >= magnitude[~lives].max()


@given(rate=RATES, seed=st.integers(0, 1000))
def test_sparsifying_keeps_the_largest_and_withholding_the_others(rate, seed):
    upload = arrays(seed)
    flat = torch.cat([array.flatten() for array in upload])
    for defend, kept in ((sparsify, 1 - rate), (withhold, 1 - rate)):
        sent = torch.cat([array.flatten() for array in defend(upload, rate)])
        there = sent != 0
        assert there.sum() in (max(1, round(flat.numel() * kept)), flat.numel() - round(flat.numel() * rate))
        assert torch.equal(sent[there], flat[there])
        inside, outside = flat[there].abs(), flat[~there].abs()
        if outside.numel():
            ordered = inside.min() >= outside.max() if defend is sparsify else inside.max() <= outside.min()
            assert ordered


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
        magnitude_mask({}, rate)
    with pytest.raises(ValueError, match="dropped"):
        sparsify(arrays(), rate)
    with pytest.raises(ValueError, match="withheld"):
        withhold(arrays(), rate)
