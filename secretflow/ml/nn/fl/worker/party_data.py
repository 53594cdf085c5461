"""How a party's worker takes its data."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from secretflow import _validate
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.backend.torch.batches import outputs_of
from secretflow.ml.nn.fl.backend.torch.evaluation import evaluation_mode
from secretflow.ml.nn.fl.backend.torch.steps import check_classes, uses_default_steps
from secretflow.ml.nn.fl.worker.data import as_tensor, batch_loader, row_weights


class PartyData:
    """A base of a party's worker, in front of upstream's.

    Attributes:
        train_set: the batches to train on.
        eval_set: the batches to evaluate or predict.
    """

    _party: str
    model: Any
    exe_device: torch.device

    def build_dataset(
        self,
        x: np.ndarray,
        y: np.ndarray | None = None,
        s_w: np.ndarray | None = None,
        *,
        batch_size: int,
        batches: int | None = None,
        shuffle: bool = False,
        random_seed: int | None = None,
        class_weight: Mapping[int, float] | None = None,
        poisson_rate: float | None = None,
        cycle: bool = False,
        even: bool = False,
        stage: str = "train",
    ) -> None:
        """Takes rows, and makes the batches to train on or to evaluate.

        Args:
            x: features, a row for each sample. Integers, such as tokens, stay integers (int64) where the
                model has an embedding; all else is float32.
            y: labels, as many.
            s_w: weights of the rows, see :func:`row_weights`.
            batch_size: see :func:`batch_loader`.
            batches: see there.
            shuffle: see there.
            random_seed: for training, of Python's and torch's random numbers; None leaves them.
            class_weight: weights of the classes, see :func:`row_weights`.
            poisson_rate: see :func:`batch_loader`.
            cycle: see there.
            even: see there.
            stage: "train" or "eval".

        Raises:
            TypeError: they are no numbers.
            ValueError: they are not as many, or numbers that cannot be taken as they are.
        """
        held = {"x": x} if y is None else {"x": x, "y": y}
        embeds = any(isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) for layer in self.model.modules())
        tensors = [
            as_tensor(self._party, name, array, keep_integers=embeds and name == "x")
            for name, array in held.items()
        ]
        if len(tensors[0]) != len(tensors[-1]):
            raise ArgumentError(
                f"y of {self._party} must have {len(x)} rows as x has, got {len(tensors[-1])}"
            )
        labels = None if y is None else tensors[1]
        if labels is not None and uses_default_steps(self.model):
            check_classes(self._party, self.model.loss, labels)
        classes = self._class_count(tensors[0][:2]) if class_weight is not None else None
        weights = row_weights(self._party, len(x), s_w, labels, class_weight, classes)
        if stage == "train" and random_seed is not None:
            random.seed(int(random_seed))  # from Python 3.11 on no integer of NumPy's
            torch.manual_seed(random_seed)
        tensors += [] if weights is None else [weights]
        loader = batch_loader(tensors, batch_size, shuffle, batches, poisson_rate, cycle, even)
        setattr(self, f"{stage}_set", loader)

    def _class_count(self, x: torch.Tensor) -> int | None:
        """How many classes the model gives scores for; None if its output does not tell."""
        with evaluation_mode(self.model):
            try:
                scores = outputs_of(self.model, x.to(self.exe_device))
            except Exception:  # a training_step of the model's own may make something else of the features
                return None
        if isinstance(scores, torch.Tensor) and scores.dim() == 2 and scores.shape[1] > 1:
            return scores.shape[1]
        return 2 if isinstance(self.model.loss, (nn.BCELoss, nn.BCEWithLogitsLoss)) else None

    def build_dataset_from_builder(
        self, dataset_builder: Any, x: Any, *arrays: np.ndarray, stage: str = "train"
    ) -> int:
        """Takes what a function of the user builds.

        Args:
            dataset_builder: given a path, or a list of the features, the labels and the weights of the rows
                as far as there are any, and ``stage``, returns an iterable of batches and how many they are.
            x: the path or the features.
            *arrays: the labels and the weights, as far as there are any.
            stage: "train" or "eval".

        Returns:
            How many batches.

        Raises:
            TypeError: the function returns something else.
            ValueError: it is no number of batches.
        """
        built = dataset_builder(x if isinstance(x, str) else [x, *arrays], stage=stage)
        pair = isinstance(built, (tuple, list)) and len(built) == 2
        _validate.check(
            pair, "dataset_builder", built, "a function that returns batches and how many", TypeError
        )
        dataset, steps = built
        _validate.integer("dataset_builder's number of batches", steps, 1)
        setattr(self, f"{stage}_set", dataset)
        return steps
