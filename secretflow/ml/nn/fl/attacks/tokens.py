"""Reads the tokens of a sequence off the gradient of an embedding.

A token's row of the embedding gets a gradient if the token occurs, and none otherwise. To use for every net
that begins with an embedding whose weights do nothing else: exact, without search, whatever the batch; the
order of the tokens is not read.

Source: Melis, Song, De Cristofaro, Shmatikov, "Exploiting unintended feature leakage in collaborative
learning", IEEE S&P 2019, on leakage from the embedding layer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.idlg import labels_or_a_guess
from secretflow.ml.nn.fl.attacks.net import by_first_name
from secretflow.ml.nn.fl.attacks.observation import Observation, Reconstruction, check_observations


def tokens_seen(observation: Observation) -> torch.Tensor:
    """The tokens that occur in a batch.

    Args:
        observation: of a net with one embedding of tokens.

    Returns:
        Their numbers, ascending, int64. A token whose embedding is pruned away whole is not among them.

    Raises:
        TypeError: it is no observation.
        ValueError: the net has no embedding, or its gradient tells no tokens apart, as where it is tied to
        the
            layer of the scores.
    """
    _validate.instance("observation", observation, Observation, "an Observation")
    net = observation.model()
    embeddings = [
        name for name, module in net.named_modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    ]
    _validate.check(bool(embeddings), "model", type(net).__name__, "one with an embedding of tokens")
    by_name = {name: k for k, (name, _) in enumerate(net.named_parameters())}
    firsts = by_first_name(net, {f"{embeddings[0]}.weight": torch.zeros(())})
    number = by_name[next(iter(firsts))]
    used = observation.gradients[number].abs().amax(dim=1) > 0
    what = "one whose embedding has a gradient at the tokens that occur alone"
    _validate.check(not bool(used.all()), "model", "a gradient at every token", what)
    return used.nonzero()[:, 0]


def token_attack(observations: Sequence[Observation]) -> list[Reconstruction]:
    """Recovers which tokens single sequences hold.

    Args:
        observations: of one sequence each.

    Returns:
        For each observation its tokens in ascending order, filled up with the last one; ``loss`` is NaN, for
        nothing is matched. Where no label can be read off it is -1.

    Raises:
        TypeError: something is not an observation.
        ValueError: a batch holds more than one sequence, or the net tells no tokens.
    """
    check_observations(observations)
    found = []
    for observation in observations:
        started = time.perf_counter()
        _validate.check(observation.batch_size == 1, "batch_size", observation.batch_size, "1 for tokens")
        tokens, steps = tokens_seen(observation), observation.image_shape[0]
        row = torch.zeros(steps, dtype=torch.int64)
        if len(tokens):
            row = torch.cat([tokens[:steps], tokens[-1:].expand(max(0, steps - len(tokens)))])
        try:
            labels = labels_or_a_guess(observation)
        except ValueError:
            labels = torch.full((1,), -1)
        seconds = time.perf_counter() - started
        images = row.to(observation.gradients[0].dtype)[None]
        found.append(Reconstruction(images, labels, float("nan"), (), 0, 0, 0, seconds))
    return found
