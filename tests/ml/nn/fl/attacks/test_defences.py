import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secretflow.ml.nn.fl.attacks.defences import add_noise, magnitude_mask, sparsify, support, withhold
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


def test_noise_is_upstreams():
    """The same clipping; the noise has the same deviation, though not the same draw."""
    upload = [array * 3 for array in arrays()]
    upstream = GaussianModelDP(noise_multiplier=0.0, num_clients=1, l2_norm_clip=2.0)
    for ours, theirs in zip(
        add_noise(upload, 0.0, 2.0, torch.Generator()),
        upstream([array.numpy() for array in upload]),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    large = [torch.zeros(200, 500)]
    noisy = add_noise(large, 0.3, 2.0, torch.Generator().manual_seed(0))[0]
    np.random.seed(0)
    theirs = GaussianModelDP(noise_multiplier=0.3, num_clients=1, l2_norm_clip=2.0)([np.ones((200, 500))])[0]
    assert float(noisy.std()) == pytest.approx(0.6, rel=0.01)
    assert float(theirs.std()) == pytest.approx(0.6, rel=0.01)


def test_a_gradient_below_the_clip_is_left_as_it_is():
    upload = [torch.tensor([0.3, 0.4])]
    assert torch.equal(add_noise(upload, 0.0, 1.0, torch.Generator())[0], upload[0])


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


def test_noise_out_of_range_is_refused_by_name():
    with pytest.raises(ValueError, match="noise_multiplier"):
        add_noise(arrays(), -1.0, 1.0, torch.Generator())
    with pytest.raises(ValueError, match="l2_norm_clip"):
        add_noise(arrays(), 1.0, 0.0, torch.Generator())
