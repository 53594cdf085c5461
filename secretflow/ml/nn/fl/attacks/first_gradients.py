"""The gradient of a first fully connected layer, for attacks that read it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from secretflow import _validate
from secretflow.ml.nn.fl.attacks.completion import EXACT, completed
from secretflow.ml.nn.fl.attacks.layers import needed_first_layer
from secretflow.ml.nn.fl.attacks.observation import Observation, check_one_step
from secretflow.ml.nn.fl.attacks.public import living_arrays


@dataclass(frozen=True)
class FirstGradient:
    """The gradient of the first linear layer as it was seen, in double precision on the CPU.

    Attributes:
        numbers: of weight and bias among the parameters.
        weight: of shape (neurons, inputs).
        bias: of shape (neurons,), as if of the weights of one more input, which is 1 in all rows.
        living: where the gradient of a weight can be, bool of the shape of ``weight``.
    """

    numbers: tuple[int, int]
    weight: torch.Tensor
    bias: torch.Tensor
    living: torch.Tensor

    @staticmethod
    def of(observation: Observation) -> FirstGradient:
        """Takes it out of an observation.

        Raises:
            ValueError: the input goes into no fully connected layer with bias.
        """
        numbers = needed_first_layer(observation)
        weight, bias = (observation.gradients[number].detach().cpu().double() for number in numbers)
        return FirstGradient(numbers, weight, bias, living_arrays(observation)[numbers[0]])

    @staticmethod
    def of_few_rows(observation: Observation, purpose: str) -> FirstGradient:
        """Takes it out of an observation whose rows the gradient's can span.

        Args:
            observation: what the attacker has.
            purpose: what that is needed for, an infinitive.

        Raises:
            ValueError: as of :meth:`of`, several local steps were taken, or there are not fewer rows than the
                layer has neurons and inputs.
        """
        check_one_step(observation, purpose)
        layer = FirstGradient.of(observation)
        rows, smaller = observation.batch_size, min(layer.weight.shape)
        what = f"below the smaller side of the first layer, {smaller}, to {purpose}"
        _validate.check(rows < smaller, "batch_size", rows, what)
        return layer

    def both(self) -> torch.Tensor:
        """The gradient with that of the bias behind it, of shape (neurons, inputs + 1)."""
        return torch.cat([self.weight, self.bias[:, None]], dim=1)

    def seen(self) -> torch.Tensor:
        """Where :meth:`both` is seen, bool: that of the bias everywhere."""
        return torch.cat([self.living, torch.ones_like(self.living[:, :1])], dim=1)

    def factors(self, rank: int, good: float = EXACT) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Of what :meth:`both` were if all weights lived, see :func:`~.completion.completed`."""
        return completed(self.both(), self.seen(), rank, good)


def with_ones(observation: Observation, x: torch.Tensor) -> torch.Tensor:
    """Rows as the layer's weights and bias meet them: with a 1 behind.

    Args:
        observation: whose rows they could be.
        x: float of shape (rows, *image_shape).

    Returns:
        float64 of shape (rows, inputs + 1).

    Raises:
        TypeError: ``x`` is no tensor.
        ValueError: it has another shape.
    """
    _validate.instance("x", x, torch.Tensor, "a tensor")
    shape = observation.image_shape
    _validate.check(tuple(x.shape[1:]) == shape, "x", tuple(x.shape), f"rows of shape {shape}")
    return torch.cat([x.flatten(1).double(), x.new_ones(len(x), 1).double()], dim=1)
