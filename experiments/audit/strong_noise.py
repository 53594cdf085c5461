"""Noise of a stated epsilon: who finds an image in an average with it, and what it costs in accuracy.

The noise is that of ``dp_strategy`` in ``fed_avg_w_prune``: each party clips its weights to a norm and adds
its part of the noise, so the average has noise of the multiplier times the norm over the number of parties.
The epsilon is that of a training of :data:`ROUNDS` rounds, by upstream's account, at a delta of 1e-5, with
one party as the unit of privacy.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch import nn, optim
from torchmetrics import Accuracy

import secretflow as sf
from experiments.audit.strong_attacks import in_wide_batches
from experiments.audit.strong_averages import perceptron, single_steps
from experiments.audit.strong_scores import Material, picked
from experiments.dgl_utils import CLASSES
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.ml.nn.fl.attacks import Observation, PublicRows
from secretflow.ml.nn.fl.attacks.public import flat, living_coordinates, public_gradients
from secretflow.ml.nn.fl.attacks.row_gradients import single_row
from secretflow.ml.nn.fl.audit.defences import through_dp
from secretflow.ml.nn.fl.audit.views import Knowledge, observe, party_gradient
from secretflow.security.aggregation import SecurePruneAggregator
from secretflow.security.privacy import DPStrategyFL, GaussianModelDP
from secretflow.utils.simulation.data.ndarray import create_ndarray

Row = dict[str, Any]
ROUNDS = 100
_DELTA = 1e-5
_LEARNING_RATE = 0.1
_BATCH = 32
_EPOCHS = 10
_LEARNED = 1000
_SEED = 1
_LOOSE = 1.1
"""Norm that weights are clipped to, over that which they begin with, so that hardly any are."""


def noisy_averages(material: Material, images: int, parties: int, epsilon: float) -> Iterator[Row]:
    """The first round of a training with noise: a step on one image a party, and the average of weights.

    Args:
        material: images.
        images: to attack, in whole groups of parties, at least one group.
        parties: behind each average.
        epsilon: of the training, above 0; infinity adds no noise.

    Yields:
        A row for the attacker who knows the noise, without noise one more for candidates; with the noise's
        ``multiplier``, and the ``accuracy`` of a training with it.
    """
    torch.manual_seed(_SEED)
    weights = dict(perceptron().state_dict())
    clip = _LOOSE * float(torch.cat([value.flatten() for value in weights.values()]).norm())
    multiplier = multiplier_of(epsilon)
    noise = DPStrategyFL(_mechanism(multiplier, parties, clip)) if multiplier else None
    numbers = torch.arange(max(1, images // parties) * parties).view(-1, parties)
    observations = [_average(material, weights, own, noise, seed) for seed, own in enumerate(numbers)]
    variance = (multiplier * clip / parties / _LEARNING_RATE) ** 2
    common = {
        "net": "784-256-10 ReLU",
        "view": f"average, noise of epsilon {epsilon:g} over {ROUNDS} rounds",
        "knowledge": "nothing pruned",
        "density": 1.0,
        "bits": None,
        "parties": parties,
        "multiplier": round(multiplier, 6),
        "accuracy": accuracy_with(material.rest, parties, noise),
    }
    yield {
        **common,
        "attack": "matched filter",
        **picked(explained(observations, material, variance), numbers),
    }
    if noise is None:
        yield {**common, **in_wide_batches(observations, numbers, material)}


def multiplier_of(epsilon: float) -> float:
    """The noise multiplier of a training of an epsilon; 0 where that is infinite."""
    if math.isinf(epsilon):
        return 0.0

    def beyond(exponent: float) -> float:
        mechanism = _mechanism(math.exp(exponent), 2, 1.0)
        return math.log(DPStrategyFL(mechanism).get_privacy_spent(ROUNDS)["model_eps"] / epsilon)

    return math.exp(brentq(beyond, math.log(1e-4), math.log(1e3)))


def explained(observations: Sequence[Observation], material: Material, variance: float) -> torch.Tensor:
    """How much likelier each average is with a candidate in it, all else taken for Gaussian.

    What else is in it is noise, alike in all coordinates, and the other parties' gradients, which differ in
    the directions in which those of public images do. Source: the matched filter in coloured noise, Kay,
    "Fundamentals of statistical signal processing: detection theory", 1998, section 4.4.

    Args:
        observations: averages of as many parties with one image each.
        material: candidates and public images.
        variance: of the noise in a coordinate of the average gradient.

    Returns:
        Log-likelihood ratios, float of shape (averages, candidates).
    """
    first = observations[0]
    living, parties = living_coordinates(first), first.batch_size
    some = PublicRows(material.public.x[:_LEARNED], material.public.y[:_LEARNED])
    single = single_row(first, some)
    known = torch.cat(list(public_gradients(single, some)))
    mean = known.mean(dim=0)
    known -= mean
    spreads, directions = torch.linalg.eigh((known @ known.T).double())
    kept = spreads > 1e-6 * spreads[-1]
    spreads, directions = spreads[kept].float(), directions[:, kept].float()
    of_others = spreads / len(known) * (parties - 1) / parties**2
    floor = max(variance, 1e-4 * float(of_others.mean()))
    less = (of_others / (of_others + floor)).sqrt()

    def whitened(rows: torch.Tensor) -> torch.Tensor:
        return (rows @ known.T) @ directions / spreads.sqrt() * less

    seen = torch.stack([flat(each.gradients, living) for each in observations]) - mean
    scores, along = [], whitened(seen)
    for gradients in public_gradients(single, material.candidates()):
        own = (gradients - mean) / parties
        own_along = whitened(own)
        products = seen @ own.T - along @ own_along.T
        squares = own.square().sum(dim=1) - own_along.square().sum(dim=1)
        scores.append((2 * products - squares) / (2 * floor))
    return torch.cat(scores, dim=1)


def accuracy_with(rows: PublicRows, parties: int, noise: DPStrategyFL | None) -> float:
    """Test accuracy of the net after :data:`ROUNDS` rounds of one batch each, in percent.

    Args:
        rows: to train on, and at their end to test on.
        parties: with as many images each.
        noise: of the strategy.
    """
    names = [f"party{number}" for number in range(parties)]
    sf.init([*names, "server"], debug_mode=True, logging_level="error")
    logging.disable(logging.INFO)  # upstream logs every fit's arguments
    try:
        devices = [sf.PYU(name) for name in names]
        each = ROUNDS // _EPOCHS * _BATCH
        x, y = (
            create_ndarray(array[: parties * each].numpy(), parts=devices, axis=0)
            for array in (rows.x, rows.y)
        )
        test = tuple(
            create_ndarray(array[-2000:].numpy(), parts=devices, axis=0) for array in (rows.x, rows.y)
        )
        model = FLModel(
            server=sf.PYU("server"),
            device_list=devices,
            model=TorchModel(
                perceptron,
                nn.CrossEntropyLoss,
                optim_wrapper(optim.SGD, lr=_LEARNING_RATE),
                [metric_wrapper(Accuracy, task="multiclass", num_classes=CLASSES)],
            ),
            backend="torch",
            aggregator=SecurePruneAggregator(sf.PYU("server"), devices),
            strategy="fed_avg_w_prune",
            prune_end_rate=1.0,
            random_seed=_SEED,
            dp_strategy=noise,
        )
        np.random.seed(_SEED)  # the noise is drawn from it
        history = model.fit(
            x, y, validation_data=test, epochs=_EPOCHS, batch_size=_BATCH, random_seed=_SEED, verbose=0
        )
        return round(100 * float(history.global_history["val_multiclassaccuracy"][-1]), 2)
    finally:
        sf.shutdown()
        logging.disable(logging.NOTSET)


def _mechanism(multiplier: float, parties: int, clip: float) -> GaussianModelDP:
    return GaussianModelDP(multiplier, num_clients=parties, l2_norm_clip=clip, delta=_DELTA)


def _average(
    material: Material,
    weights: dict[str, torch.Tensor],
    numbers: torch.Tensor,
    noise: DPStrategyFL | None,
    seed: int,
) -> Observation:
    """The average weights after one step of each party, as the gradient that they tell of."""
    steps = single_steps(weights, material, numbers)
    before = list(weights.values())
    uploads = []
    for party, step in enumerate(steps):
        after = [
            old - _LEARNING_RATE * gradient
            for old, gradient in zip(before, party_gradient(step), strict=True)
        ]
        own = seed * len(steps) + party
        uploads.append(after if noise is None else through_dp(after, noise, own))
    seen = [
        (old - torch.stack(arrays).mean(dim=0)) / _LEARNING_RATE
        for old, *arrays in zip(before, *uploads, strict=True)
    ]
    return observe(steps[0], seen, Knowledge.MASK_KNOWN, classes=CLASSES, parties=len(steps))
