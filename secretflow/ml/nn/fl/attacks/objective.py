"""What an optimising attack brings down: how far a guess's gradient is from the one that was seen.

The distances and the prior are pure functions; :class:`Objective` evaluates one of them for many guesses at
once, each against its own observation, by ``torch.func.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.func import grad_and_value, vmap

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.net import (
    by_first_name,
    called,
    check_not_random,
    differentiable_twice,
    in_mode,
)
from secretflow.ml.nn.fl.attacks.observation import Observation, check_observations
from secretflow.ml.nn.fl.attacks.simulate import simulated_gradient

Arrays = Sequence[torch.Tensor]
Distance = Callable[[Arrays, Arrays], torch.Tensor]


def squared_distance(guess: Arrays, seen: Arrays) -> torch.Tensor:
    """Squared Euclidean distance over all arrays together.

    Source: Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019, section 3.2, eq. (3).

    Args:
        guess: gradient arrays.
        seen: gradient arrays of the same shapes.

    Returns:
        Scalar, at least 0.
    """
    return torch.stack([(a - b).square().sum() for a, b in zip(guess, seen, strict=True)]).sum()


def cosine_distance(guess: Arrays, seen: Arrays) -> torch.Tensor:
    """One minus the cosine of the angle between two gradients, each taken as one long vector.

    Source: Geiping et al., "Inverting Gradients", NeurIPS 2020, section 4, eq. (4), first term.

    Args:
        guess: gradient arrays.
        seen: gradient arrays of the same shapes.

    Returns:
        Scalar in [0, 2]; NaN if one of the vectors is zero.
    """
    products = torch.stack([(a * b).sum() for a, b in zip(guess, seen, strict=True)]).sum()
    norms = [torch.stack([a.square().sum() for a in arrays]).sum().sqrt() for arrays in (guess, seen)]
    return 1 - products / (norms[0] * norms[1])


def total_variation(images: torch.Tensor) -> torch.Tensor:
    """Anisotropic total variation: mean absolute difference of vertical plus that of horizontal neighbours.

    Source: Geiping et al., "Inverting Gradients", NeurIPS 2020, section 4, eq. (4), second term.

    Args:
        images: float of shape (..., height, width); a direction without neighbours counts 0.

    Returns:
        Scalar, at least 0.
    """
    differences = (images[..., 1:, :] - images[..., :-1, :], images[..., 1:] - images[..., :-1])
    return torch.stack([d.abs().mean() if d.numel() else images.new_zeros(()) for d in differences]).sum()


_SHARED = (
    "image_shape",
    "classes",
    "batch_size",
    "local_steps",
    "learning_rate",
    "model",
    "evaluating",
    "value_range",
)


class Objective:
    """The matching loss of many guesses, each beside its own observation.

    A guess is one vector: the numbers of its rows, then, unless labels are given, the scores whose softmax
    is the guessed label.

    Args:
        observations: what the attacker has; all of one net, batch size and number of local steps.
        distance: between the gradient of a guess and the one seen.
        labels: class probabilities of shape (observations, batch, classes) if the attacker fixes them.
        tv_weight: weight of the total variation of the images, at least 0; other rows have none.
        device: where to compute; None is a GPU if there is one.

    Raises:
        TypeError: something is not an observation.
        ValueError: there is no observation, two of them cannot be attacked together, or the net's output is
            random, so that an attack would measure nothing.
    """

    def __init__(
        self,
        observations: Sequence[Observation],
        distance: Distance = squared_distance,
        labels: torch.Tensor | None = None,
        tv_weight: float = 0.0,
        device: torch.device | None = None,
    ) -> None:
        check_observations(observations)
        first = observations[0]
        for field in _SHARED:
            values = {getattr(observation, field) for observation in observations}
            what = "equal in all observations; attack others one after the other"
            _validate.check(len(values) == 1, field, values, what)
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = first.gradients[0].dtype
        self.image_shape = (first.batch_size, *first.image_shape)
        self.label_shape = (first.batch_size, first.classes)
        self.squared_norms = torch.tensor(
            [float(sum(g.square().sum() for g in observation.gradients)) for observation in observations],
            dtype=torch.float64,
        )
        self._net = in_mode(first.model(), first.evaluating).to(self.device)
        self._steps, self._learning_rate = first.local_steps, first.learning_rate or 1.0
        self._distance, self._tv_weight = distance, tv_weight if first.is_image else 0.0
        self._batched = True
        self._names = [name for name, _ in self._net.named_parameters()]
        self._fixed_labels = labels is not None
        self._stacked = _stack([self._tensors(observation) for observation in observations])
        if labels is not None:
            self._stacked["labels"] = labels.to(self.device, self.dtype)
        self._check_net(first)

    def _check_net(self, observation: Observation) -> None:
        like = self._stacked[f"weight {self._names[0]}"]
        x = torch.rand(self.image_shape, generator=torch.Generator().manual_seed(0)).to(like)
        state = _state({name: value[0] for name, value in self._stacked.items()})
        check_not_random(self._net, lambda: called(self._net, state, x))

    def _tensors(self, observation: Observation) -> dict[str, torch.Tensor]:
        """One observation, flat by kind and name; pruned weights are zero and what does not count is too."""
        found: dict[str, torch.Tensor] = {}
        weights, mask, compared = (
            by_first_name(self._net, tensors or {})
            for tensors in (observation.weights, observation.mask, observation.compared)
        )
        for name, seen in zip(self._names, observation.gradients, strict=True):
            weight = weights[name].detach()
            alive = mask[name].to(weight) if name in mask else torch.ones_like(weight)
            counts = alive * compared[name].to(weight) if name in compared else alive
            found |= {
                f"weight {name}": weight * alive,
                f"alive {name}": alive,
                f"counts {name}": counts,
                f"seen {name}": seen.detach() * counts,
            }
        for name, value in weights.items():
            if name not in self._names:
                found[f"weight {name}"] = value.detach()
        return {name: value.to(self.device) for name, value in found.items()}

    @property
    def size(self) -> int:
        """Numbers in one guess."""
        pixels = torch.Size(self.image_shape).numel()
        return pixels if self._fixed_labels else pixels + torch.Size(self.label_shape).numel()

    def split(self, guess: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A guess's images, (batch, channels, height, width), and the scores of its labels, if guessed."""
        pixels = torch.Size(self.image_shape).numel()
        scores = None if self._fixed_labels else guess[pixels:].view(self.label_shape)
        return guess[:pixels].view(self.image_shape), scores

    def bind(self, rows: Sequence[int]) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """The objective as a function of guesses.

        Args:
            rows: number of the observation of each guess.

        Returns:
            A function from guesses of shape (rows, size) to their losses, (rows,), and the gradients of the
            losses, (rows, size).
        """
        index = torch.tensor(rows, device=self.device)
        chosen = {name: value.index_select(0, index) for name, value in self._stacked.items()}

        def evaluate(guesses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            with differentiable_twice(self._net):
                gradients, losses = self._evaluated(guesses, chosen)
            return losses.detach(), gradients.detach()

        return evaluate

    def _evaluated(
        self, guesses: torch.Tensor, chosen: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        one = grad_and_value(self._loss)
        if self._batched:
            try:
                return vmap(one)(guesses, chosen)
            except RuntimeError as error:
                if not any(word in str(error) for word in ("vmap", "atching rule")):
                    raise
                self._batched = False  # the net has an operation that torch cannot do for many at once
        rows = [
            one(guess, {name: value[k] for name, value in chosen.items()}) for k, guess in enumerate(guesses)
        ]
        gradients, losses = zip(*rows, strict=True)
        return torch.stack(gradients), torch.stack(losses)

    def _loss(self, guess: torch.Tensor, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        images, scores = self.split(guess)
        labels = seen["labels"] if scores is None else scores.softmax(dim=-1)
        simulated = self._simulate(images, labels, seen)
        counted = [simulated[name] * seen[f"counts {name}"] for name in self._names]
        loss = self._distance(counted, [seen[f"seen {name}"] for name in self._names])
        return loss + self._tv_weight * total_variation(images) if self._tv_weight else loss

    def _simulate(
        self, images: torch.Tensor, labels: torch.Tensor, seen: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """What training on a guess would have shown, by parameter."""
        state = _state(seen)
        start = {name: state.pop(name) for name in self._names}
        alive = {name: seen[f"alive {name}"] for name in self._names}
        return simulated_gradient(
            self._net, start, state, alive, images, labels, self._steps, self._learning_rate
        )


def _state(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("weight "): value for name, value in tensors.items() if name[:7] == "weight "}


def _stack(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
