"""Which party holds which rows, as pure functions of labels and a random generator."""

from __future__ import annotations

import numpy as np

_TRIES = 1000


def iid(rows: int, parties: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Shuffles the rows and gives every party the same number of them.

    Args:
        rows: how many there are, at least ``parties``.
        parties: how many parties there are, at least 1.
        generator: source of randomness.

    Returns:
        Row numbers of each party, int64; the sizes differ by 1 at most.
    """
    return np.array_split(generator.permutation(rows), parties)


def dirichlet(
    labels: np.ndarray,
    parties: int,
    concentration: float,
    least: int,
    generator: np.random.Generator,
) -> list[np.ndarray]:
    """Splits the rows of each label in proportions drawn from a symmetric Dirichlet distribution.

    Source: Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated visual
    classification", 2019; drawn for each label over the parties as in Li et al., "Federated learning on
    non-IID data silos", 2022, section 4.2.

    Args:
        labels: of shape (rows,).
        parties: how many parties there are, at least 1.
        concentration: above 0; the smaller, the more labels are held by few parties.
        least: rows that every party shall have; a draw that gives fewer is repeated.
        generator: source of randomness.

    Returns:
        Row numbers of each party, int64, shuffled; each row belongs to exactly one party.

    Raises:
        ValueError: no draw gave every party ``least`` rows.
    """
    for _ in range(_TRIES):
        held: list[list[np.ndarray]] = [[] for _ in range(parties)]
        for label in np.unique(labels):
            rows = generator.permutation(np.flatnonzero(labels == label))
            shares = generator.dirichlet(np.full(parties, concentration))
            ends = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(int)
            for party, part in enumerate(np.split(rows, ends)):
                held[party].append(part)
        if min(sum(map(len, parts)) for parts in held) >= least:
            return [generator.permutation(np.concatenate(parts)) for parts in held]
    raise ValueError(
        f"{len(labels)} rows are too few for {parties} parties: none of {_TRIES} draws gave each {least} rows"
    )
