"""Deep Leakage from Gradients: guess image and label until their gradient is the one that was seen.

Source: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019, section 3.2, algorithm 1. To use when the
batch is small, the activation smooth and the gradient exact.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from secretflow.ml.nn.fl.attacks.observation import Frame, Observation, Reconstruction, Target

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class DLGSettings:
    """How hard to try.

    Attributes:
        iterations: L-BFGS steps of one restart, at least 1; each holds up to 20 evaluations.
        restarts: random starts, at least 1. The first that reaches ``loss_reached`` ends the attack, else the
            one of the smallest matching loss wins.
        loss_reached: matching loss that counts as a match, relative to the squared norm of the gradient
            that was seen, at least 0.
        patience: a restart is given up when so many steps in a row have not brought its smallest matching
            loss down by 1 percent, at least 1.
        record_every: steps between two frames of the history, at least 1.
        seed: of the random starts; restart ``r`` starts the same however many there are.

    Raises:
        ValueError: a number is out of its range.
    """

    iterations: int = 300
    restarts: int = 4
    loss_reached: float = 1e-9
    patience: int = 50
    record_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "restarts", "patience", "record_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} is not allowed: at least 1")
        if not 0 <= self.loss_reached < math.inf:
            raise ValueError(f"loss_reached={self.loss_reached!r} is not allowed: at least 0")


def dlg_attack(
    observation: Observation, settings: DLGSettings = DLGSettings(), progress: Progress | None = None
) -> Reconstruction:
    """Reconstructs a batch from its gradient.

    Args:
        observation: what the attacker has.
        settings: how hard to try.
        progress: called after each step with restart, step and matching loss.

    Returns:
        The reconstruction of the smallest matching loss. If every restart diverged it is the last
        finite one of the first restart, with an infinite loss.
    """
    started = time.perf_counter()
    target = Target(observation)
    scale = sum(float(gradient.square().sum()) for gradient in observation.gradients)
    best: _Attempt | None = None
    diverged = 0
    for restart in range(settings.restarts):
        attempt = _attempt(target, observation, settings, restart, settings.loss_reached * scale, progress)
        diverged += math.isinf(attempt.loss)
        if best is None or attempt.loss < best.loss:
            best = attempt
        if best.loss <= settings.loss_reached * scale:
            break
    assert best is not None  # there is at least one restart
    return Reconstruction(
        images=best.images,
        labels=best.logits.argmax(dim=-1),
        loss=best.loss,
        history=best.history,
        iteration=best.iteration,
        restart=best.restart,
        diverged=diverged,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Attempt:
    images: torch.Tensor
    logits: torch.Tensor
    loss: float
    history: tuple[Frame, ...]
    iteration: int
    restart: int


def _attempt(
    target: Target,
    observation: Observation,
    settings: DLGSettings,
    restart: int,
    loss_reached: float,
    progress: Progress | None,
) -> _Attempt:
    """One restart. Its loss is infinite if it diverged, and its images are then the last finite ones."""
    images, logits = _random_start(observation, settings.seed, restart)
    optimizer = torch.optim.LBFGS([images, logits], lr=1.0)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = target.loss(images, logits.softmax(dim=-1))
        loss.backward()
        return loss.detach()

    loss = float(closure())
    history = [Frame(0, loss, images.detach().clone())]
    iteration, smallest, improved = 0, loss, 0
    for iteration in range(1, settings.iterations + 1):
        before = images.detach().clone(), logits.detach().clone()
        optimizer.step(closure)
        loss = float(closure())
        if not (math.isfinite(loss) and torch.isfinite(images).all() and torch.isfinite(logits).all()):
            return _Attempt(*before, math.inf, tuple(history), iteration, restart)
        stuck = torch.equal(images, before[0]) and torch.equal(logits, before[1])
        if loss < 0.99 * smallest:
            smallest, improved = loss, iteration
        hopeless = stuck or iteration - improved >= settings.patience
        last = hopeless or loss <= loss_reached or iteration == settings.iterations
        if last or iteration % settings.record_every == 0:
            history.append(Frame(iteration, loss, images.detach().clone()))
        if progress is not None:
            progress(restart, iteration, loss)
        if last:
            break
    return _Attempt(images.detach(), logits.detach(), loss, tuple(history), iteration, restart)


def _random_start(observation: Observation, seed: int, restart: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed + 7919 * restart)
    dtype = observation.gradients[0].dtype
    shapes = (observation.batch_size, *observation.image_shape), (observation.batch_size, observation.classes)
    images, logits = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return images.requires_grad_(), logits.requires_grad_()
