"""Rows are dealt out to parties."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import partition


@pytest.mark.parametrize("parties", [2, 5, 10])
def test_dirichlet_gives_every_row_to_one_party_and_skews_the_labels(parties: int) -> None:
    labels = np.random.default_rng(0).integers(0, 10, 5000)
    split = partition.dirichlet(labels, parties, 0.5, 40, np.random.default_rng(1))
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(5000))
    assert min(map(len, split)) >= 40

    def spread(
        parts: list[np.ndarray],
    ) -> float:  # mean distance of a party's label frequencies from those of all
        overall = np.bincount(labels, minlength=10) / len(labels)
        own = [np.bincount(labels[part], minlength=10) / len(part) for part in parts]
        return float(np.mean([np.abs(frequencies - overall).sum() for frequencies in own]))

    even = partition.iid(5000, parties, np.random.default_rng(1))
    assert np.array_equal(np.sort(np.concatenate(even)), np.arange(5000))
    assert max(map(len, even)) - min(map(len, even)) <= 1
    assert spread(split) > 0.4 > 0.2 > spread(even)


def test_dirichlet_says_when_the_rows_are_too_few() -> None:
    with pytest.raises(ValueError, match=r"20 rows are too few for 10 parties.*each 5 rows"):
        partition.dirichlet(np.arange(20) % 10, 10, 0.5, 5, np.random.default_rng(0))
