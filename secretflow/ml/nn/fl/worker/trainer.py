"""Local training: what a party does with its own batches in a round.

Another local objective is a subclass of :class:`Trainer` with another :meth:`Trainer.loss`, and an entry in
``TRAINERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from secretflow import _validate
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.backend.torch.batches import row_count

Batch: TypeAlias = "tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]"
"""Features, labels and, if there are any, the weights of the rows."""

Loss: TypeAlias = "torch.Tensor | list[torch.Tensor] | None"


@dataclass(frozen=True)
class LocalObjective:
    """What a party minimises on its own rows.

    Attributes:
        name: "plain" is the model's own loss; "prox" adds FedProx's proximal term (Li et al., "Federated
            Optimization in Heterogeneous Networks", MLSys 2020, section 3.2), which holds the party near the
            average that the round began with.
        mu: weight of the proximal term, above 0 with "prox" and 0 otherwise.

    Raises:
        TypeError: ``mu`` is not a number.
        ValueError: ``name`` is unknown, or ``mu`` does not go with it.
    """

    name: str = "plain"
    mu: float = 0.0

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        if isinstance(self.mu, bool) or not isinstance(self.mu, (int, float)):
            raise TypeError(f"mu must be a number, got {self.mu!r}")
        if self.name not in TRAINERS:
            raise ValueError(f"local_objective must be one of {sorted(TRAINERS)}, got {self.name!r}")
        if self.name == "prox" and not 0 < self.mu < float("inf"):
            raise ValueError(f"mu must be above 0 with local_objective='prox', got {self.mu!r}")
        if self.name != "prox" and self.mu:
            raise ValueError(f"mu must be 0 without local_objective='prox', got {self.mu!r}")

    @classmethod
    def chosen(cls, name: str | None, mu: float) -> LocalObjective:
        """The objective that a user means.

        Args:
            name: None is "prox" where ``mu`` is not 0, and "plain" otherwise.
            mu: see the class.
        """
        return cls(("prox" if mu else "plain") if name is None else name, mu)


class Trainer:
    """Trains a model on the next batches.

    Args:
        model: upstream's torch model, with its optimisers.
        next_batch: gives the next batch.
        objective: what is minimised.
    """

    def __init__(self, model: Any, next_batch: Callable[[], Batch], objective: LocalObjective) -> None:
        self.model = model
        self.objective = objective
        self._next_batch = next_batch
        self._loss: torch.Tensor | None = None
        self._losses: list[torch.Tensor] = []

    def begin_round(self) -> None:
        """Takes notice of the average that a round begins with."""

    def loss(self, batch: Batch, step: int) -> Loss:
        """What a step minimises.

        Args:
            batch: the step's.
            step: number of the step since training began.

        Returns:
            The loss, or a list of losses of which the sum is minimised; None is allowed for a model that
            steps its optimisers itself.

        Raises:
            ValueError: labels or tokens are taken for integers, or are beyond what the model has.
        """
        x, y, sample_weight = batch
        try:
            loss = self.model.training_step((x, y), step, sample_weight=sample_weight)
        except RuntimeError as error:
            if "Long" in str(error) and "Float" in str(error):
                raise ValueError(
                    "training_step must make integers of numbers of classes and tokens that are float32 in a "
                    "batch, with y.long() or x.long(), and float32 of integers that a layer computes with, "
                    f"with x.float(), got: {error}"
                ) from error
            raise
        except IndexError as error:
            raise _beyond(error, x) from error
        return list(loss) if isinstance(loss, tuple) else loss

    def train(
        self,
        first_step: int,
        steps: int,
        watch: Callable[[Batch], Callable[[], None]] | None = None,
        after_step: Callable[[], None] = lambda: None,
    ) -> int:
        """Trains on the next batches.

        Args:
            first_step: number of the first step since training began.
            steps: how many batches, at least 1.
            watch: called before the first step with its batch; what it returns is called after the step.
            after_step: called after each step, before the next one looks at the weights.

        Returns:
            How many rows.

        Raises:
            ValueError: the model has no optimiser, or its step returns no loss.
        """
        if self.model.automatic_optimization and not self.model._optimizers:
            raise ArgumentError(
                "optim_fn of TorchModel must be given for a model without configure_optimizers, got None; "
                "optim_wrapper(torch.optim.SGD, lr=0.1) is one"
            )
        samples = 0
        for step in range(first_step, first_step + steps):
            batch = self._next_batch()
            samples += row_count(batch[0])
            after, watch = watch and watch(batch), None
            loss = self.loss(batch, step)
            if self.model.automatic_optimization:
                if not isinstance(loss, (torch.Tensor, list)):
                    raise ValueError(
                        "training_step must return a tensor or a list of tensors unless "
                        f"automatic_optimization is False, got {type(loss).__name__}"
                    )
                self.model.backward_step(loss)
            after_step()
            self._loss = _detached(loss)
            self._losses += [] if self._loss is None else [self._loss]
            if after:
                after()
        return samples

    def take_mean_loss(self) -> float | None:
        """Mean loss of the steps since this was asked last; None if there was none."""
        losses, self._losses = self._losses, []
        return torch.stack(losses).mean().item() if losses else None

    def last_loss(self) -> float | None:
        """Loss of the last step; None if there was none."""
        return None if self._loss is None else self._loss.item()


class ProximalTrainer(Trainer):
    """Adds ``mu / 2`` times the squared distance from the average that the round began with."""

    def begin_round(self) -> None:
        """Keeps the average."""
        self._average = [parameter.detach().clone() for parameter in self.model.parameters()]

    def loss(self, batch: Batch, step: int) -> Loss:
        """The model's own loss and the proximal term.

        Raises:
            ValueError: the model steps its optimisers itself, so there is no loss to add to.
        """
        own = super().loss(batch, step)
        if own is None or not self.model.automatic_optimization:
            raise ValueError(
                "local_objective must be 'plain' for a model that steps its optimisers itself, got 'prox'"
            )
        distances = [
            (parameter - start).square().sum()
            for parameter, start in zip(self.model.parameters(), self._average, strict=True)
        ]
        term = self.objective.mu / 2 * torch.stack(distances).sum()
        return [*own, term] if isinstance(own, list) else own + term


def _beyond(error: IndexError, x: Any) -> IndexError | ArgumentError:
    """What to say of an error where torch speaks of an index only."""
    if str(error).startswith("Target ") and "out of bounds" in str(error):
        return ArgumentError(
            "y must hold numbers of classes from 0 on, fewer than the scores that the model gives, got: "
            f"{error}"
        )
    if "index out of range in self" in str(error):
        whole = isinstance(x, torch.Tensor) and not x.is_floating_point() and x.numel() > 0
        held = f"tokens from {int(x.min())} to {int(x.max())} in a batch" if whole else str(error)
        return ArgumentError(
            f"x must hold tokens from 0 on, fewer than num_embeddings of the model's nn.Embedding, got {held}"
        )
    return error


def _detached(loss: Loss) -> torch.Tensor | None:
    """The loss, or the sum of a list of them, without gradient."""
    if isinstance(loss, list):
        return torch.stack([part.detach() for part in loss]).sum() if loss else None
    return None if loss is None else loss.detach()


TRAINERS: dict[str, type[Trainer]] = {"plain": Trainer, "prox": ProximalTrainer}


def make_trainer(model: Any, next_batch: Callable[[], Batch], objective: LocalObjective) -> Trainer:
    """The trainer of an objective.

    Args:
        model: as for :class:`Trainer`.
        next_batch: as for :class:`Trainer`.
        objective: as for :class:`Trainer`.
    """
    return TRAINERS[objective.name](model, next_batch, objective)
