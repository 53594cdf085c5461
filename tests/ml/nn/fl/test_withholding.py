import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secretflow.ml.nn.fl.backend.torch.withholding import largest_entries, withhold


def arrays(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in ((7, 9), (7,), (2, 3, 3))]


def flat(parts):
    return torch.cat([array.flatten() for array in parts])


@given(rate=st.floats(0, 0.99), seed=st.integers(0, 1000))
def test_the_largest_entries_of_all_arrays_together_stay_at_home(rate, seed):
    update = arrays(seed)
    whole, sent = flat(update), flat(withhold(update, rate))
    there = sent != 0
    assert there.sum() == whole.numel() - min(whole.numel() - 1, round(whole.numel() * rate))
    assert torch.equal(sent[there], whole[there])
    assert there.all() or whole[there].abs().max() <= whole[~there].abs().min()


def test_of_equal_entries_the_first_count_as_the_largest():
    marked = largest_entries([torch.tensor([[1.0, -1.0]]), torch.tensor([1.0, 2.0])], 2)
    assert [array.tolist() for array in marked] == [[[1, 0]], [0, 1]]


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_part_out_of_range_is_refused_by_name(rate):
    with pytest.raises(ValueError, match="withheld"):
        withhold(arrays(), rate)
