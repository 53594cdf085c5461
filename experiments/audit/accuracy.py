"""What a defence costs: the accuracy of a short federated training under it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from experiments.audit.cells import NOISY, PRUNING, SPARSE, WITHHELD
from experiments.audit.noise import gaussian_dp
from experiments.data import Images, as_images
from experiments.dgl_utils import ConvNet
from secretflow.ml.nn.fl.audit.defences import one_step, sparsify, through_dp
from secretflow.ml.nn.fl.backend.torch.masked_model import apply_mask, full_mask_of, prune_model
from secretflow.ml.nn.fl.backend.torch.withholding import withhold

ROUNDS, BATCH, PARTIES, TRAIN_ROWS, TEST_ROWS = 400, 32, 2, 10_000, 2_000
_LEARNING_RATE, _CLIP = 1e-2, 1.0


def accuracy_under(defence: str, level: float, images: Images, seeds: Sequence[int]) -> dict[str, Any]:
    """Trains the small net of the main job on MNIST with two parties, and defends every upload.

    In each round a party uploads the gradient of one batch, defended, and the mean is a step of Adam. Weight
    pruning removes its part after half of the rounds at once and trains on under the mask.

    Args:
        defence: one of the audit's.
        level: see :class:`~.cells.Cell`; the noise is relative to a clipping norm of 1.
        images: MNIST.
        seeds: of weights, batches and noise, each of one training, at least one.

    Returns:
        A row: defence, level, mean test accuracy, in [0, 1], and that of each seed.
    """
    found = [_train(defence, level, images, seed) for seed in seeds]
    mean = round(statistics.mean(found), 4)
    return {"defence": defence, "level": level, "accuracy": mean, "accuracies": found}


def _train(defence: str, level: float, images: Images, seed: int) -> float:
    torch.manual_seed(seed)
    net, generator = ConvNet(), torch.Generator().manual_seed(seed)
    x = torch.from_numpy(as_images(images.x_train[:TRAIN_ROWS]))
    y = torch.from_numpy(images.y_train).long()
    optimizer = torch.optim.Adam(net.parameters(), lr=_LEARNING_RATE)
    mask = full_mask_of(net)
    for number in range(ROUNDS):
        if defence == PRUNING and number == ROUNDS // 2:
            mask = prune_model(net, mask, one_step(level), epoch=1)
        uploads = []
        for rows in torch.randint(len(x), (PARTIES, BATCH), generator=generator):
            gradient = torch.autograd.grad(F.cross_entropy(net(x[rows]), y[rows]), list(net.parameters()))
            uploads.append(_defended(gradient, defence, level, generator))
        for parameter, *arrays in zip(net.parameters(), *uploads, strict=True):
            parameter.grad = torch.stack(arrays).mean(dim=0)
        optimizer.step()
        apply_mask(net, mask)
    with torch.no_grad():
        test = torch.from_numpy(as_images(images.x_test[:TEST_ROWS]))
        right = net(test).argmax(dim=1) == torch.from_numpy(images.y_test[:TEST_ROWS]).long()
    return round(float(right.float().mean()), 4)


def _defended(
    gradient: Sequence[torch.Tensor], defence: str, level: float, generator: torch.Generator
) -> Sequence[torch.Tensor]:
    if defence == SPARSE:
        return sparsify(gradient, level)
    if defence == WITHHELD:
        return withhold(gradient, level)
    if defence == NOISY:
        seed = int(torch.randint(2**31, (), generator=generator))
        return through_dp(gradient, gaussian_dp(level, _CLIP), seed)
    return gradient
