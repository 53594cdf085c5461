"""With whom a party shares pads: a few neighbours in a graph, where everybody would be too many.

The graph is the one of Bell et al. 2020 ("Secure Single-Server Aggregation with (Poly)Logarithmic Overhead",
CCS 2020, eprint 2020/704, section 3): the parties stand on a circle in a random order, and each shares pads
with the ``degree / 2`` next to it on either side. The order comes from the session, which is a hash of
everybody's public key, so all parties work out the same one and nobody draws it.

Who is gone or works together with the server leaves the graph, for the server can take the pads of both off.
While what is left is connected, all that the uploads tell of it is one sum: along a spanning tree each pad
hides one difference. The circle falls apart only where two runs of ``degree / 2`` parties or more have left
it, as no edge reaches over such a run and one alone leaves a chain.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from math import comb

EVERYBODY_UP_TO = 32
"""Parties up to which each shares pads with all others unless the user says otherwise."""

FAILURE_BITS = 40
"""The graph falls apart with a chance of at most 2^-40."""


def degree_for(parties: int, colluders: int, dropped: int = 0) -> int:
    """The fewest neighbours that are enough.

    With them the parties that are left, honest and there, are connected but for a chance of at most 2^-40
    in a session. The colluders do not choose their places: they are fixed before the keys are drawn. Whoever
    is gone may have been chosen by the server, which knows the graph. Colluders that try out keys until the
    order suits them do not follow the protocol; each try is another chance of 2^-40 for them. So is each
    session that begins because a party was lost or comes back. Where it has fewer parties, as many must be
    left as before, so as many more are gone in the larger one, and the neighbours of that are enough.

    Args:
        parties: how many take part.
        colluders: how many of them may work together with the server.
        dropped: how many of them may be gone.

    Returns:
        An even number, or ``parties - 1``: everybody.
    """
    if colluders + dropped >= parties - 2:
        return parties - 1
    few, many = 0, parties // 2  # of the half degree: too few, and enough
    while many - few > 1:
        half = (few + many) // 2
        if _falls_apart(parties, half, colluders, dropped):
            few = half
        else:
            many = half
    return min(2 * many, parties - 1)


def failure(parties: int, half: int, colluders: int, dropped: int = 0) -> tuple[int, int]:
    """A bound on the chance that the graph falls apart, as numerator and denominator.

    Two windows of ``half`` parties each, without an honest party that is there in them: of the ``2 * half``
    parties all but ``dropped`` must be colluders. The places are as good as drawn without replacement, so the
    chance for two given windows is a tail of the hypergeometric distribution, and there are fewer than
    ``parties`` choose 2 pairs of windows.

    Args:
        parties: how many take part.
        half: of the degree, fewer than half of the parties.
        colluders: how many work together with the server.
        dropped: how many the server has chosen to be gone.
    """
    window, honest = 2 * half, parties - colluders
    fewest = max(window - dropped, 0)
    ways = sum(
        comb(colluders, caught) * comb(honest, window - caught) for caught in range(fewest, window + 1)
    )
    return comb(parties, 2) * ways, comb(parties, window)


def neighbours_of(party: str, names: Sequence[str], session: bytes, degree: int) -> list[str]:
    """Who shares pads with a party; each of them has it among its own.

    Args:
        party: its name.
        names: of all parties.
        session: names the key agreement.
        degree: how many neighbours, even; from one less than all parties on everybody is one.

    Returns:
        Names, in the order in which they were given.
    """
    if degree >= len(names) - 1:
        return [name for name in names if name != party]
    circle = sorted(names, key=lambda name: hmac.digest(session, b"place " + name.encode(), "sha256"))
    own, half = circle.index(party), degree // 2
    near = {circle[(own + step) % len(circle)] for step in range(-half, half + 1) if step}
    return [name for name in names if name in near]


def _falls_apart(parties: int, half: int, colluders: int, dropped: int) -> bool:
    above, below = failure(parties, half, colluders, dropped)
    return above << FAILURE_BITS > below
