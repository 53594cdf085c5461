import itertools
import math

import pytest
import torch

from secretflow.ml.nn.fl.audit.scores import (
    label_accuracy,
    match,
    mean_squared_error,
    nearest,
    peak_signal_to_noise,
    rank,
    ranks,
    structural_similarity,
)


def test_errors_are_those_computed_by_hand():
    truth, guess = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.2, 7.0]])  # clipped to 1
    assert mean_squared_error(guess, truth) == pytest.approx(0.02)
    assert peak_signal_to_noise(guess, truth) == pytest.approx(10 * math.log10(1 / 0.02), rel=1e-5)


def test_the_similarity_of_flat_images_is_that_computed_by_hand():
    """Without structure only the means count: (2 a b + c) / (a^2 + b^2 + c) with c = 0.01^2."""
    one, other = (torch.full((1, 1, 16, 16), value).double() for value in (0.4, 0.6))
    expected = (2 * 0.4 * 0.6 + 1e-4) / (0.4**2 + 0.6**2 + 1e-4)
    assert structural_similarity(other, one) == pytest.approx(expected, rel=1e-4)
    assert structural_similarity(one, one) == pytest.approx(1)


def test_the_fraction_of_right_labels_is_counted():
    assert label_accuracy(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 4])) == 0.75


def test_the_nearest_candidate_is_found_after_clipping():
    candidates = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    assert nearest(torch.tensor([[9.0, -4.0], [0.2, 0.3]]), candidates).tolist() == [2, 0]


def test_a_rank_counts_the_candidates_that_are_as_near():
    candidates = torch.arange(5.0)[:, None] / 10
    ranks = [rank(torch.tensor([[0.12]]), candidates[own : own + 1], candidates) for own in range(5)]
    assert ranks == [3, 1, 2, 4, 5]


def test_a_noise_has_no_image_of_its_own():
    torch.manual_seed(0)
    candidates = torch.rand(200, 1, 8, 8)
    ranks = [rank(torch.rand(1, 1, 8, 8), candidates[own : own + 1], candidates) for own in range(200)]
    assert 80 < sum(ranks) / len(ranks) < 120


def test_reconstructions_are_matched_to_true_images_at_the_smallest_total_error():
    torch.manual_seed(0)
    truth = torch.rand(4, 1, 3, 3)
    order = torch.tensor([2, 0, 3, 1])
    guess = torch.empty_like(truth)
    guess[order] = truth + 0.1 * torch.randn_like(truth)
    assert torch.equal(match(guess, truth), order)


def test_no_other_assignment_is_better():
    torch.manual_seed(1)
    truth, guess = torch.rand(4, 5), torch.rand(4, 5)
    totals = [
        float((guess[list(order)] - truth).square().sum()) for order in itertools.permutations(range(4))
    ]
    assert float((guess[match(guess, truth)] - truth).square().sum()) == pytest.approx(min(totals))


@pytest.mark.parametrize("shape", [(1, 10, 16), (1, 1, 10, 16), (1, 1, 16, 18)])
def test_a_similarity_of_what_are_no_two_images_is_refused_with_its_shape(shape):
    with pytest.raises(ValueError, match="images must be"):
        structural_similarity(torch.zeros(shape), torch.zeros(1, 1, 16, 16))


def test_ranks_of_many_are_those_of_each():
    torch.manual_seed(0)
    candidates, numbers = torch.rand(300, 1, 3, 3), torch.tensor([4, 0, 299])
    images = candidates[numbers] + torch.tensor([0.0, 0.2, 0.6])[:, None, None, None] * torch.randn(
        3, 1, 3, 3
    )
    each = [rank(images[k : k + 1], candidates[n : n + 1], candidates) for k, n in enumerate(numbers)]
    found = ranks(images, numbers, candidates)
    assert found.tolist() == each == [1, 21, 1]


def test_the_ranks_of_noise_are_at_chance():
    torch.manual_seed(0)
    candidates = torch.rand(2000, 1, 8, 8)
    found = ranks(torch.rand(300, 1, 8, 8), torch.arange(300), candidates)
    assert 850 < found.float().mean() < 1150 and (found == 1).sum() <= 3
