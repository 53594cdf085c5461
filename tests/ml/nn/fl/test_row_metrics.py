"""Metrics of many batches at once are those of the batches one by one."""

from __future__ import annotations

import pytest
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchmetrics.classification import (
    BinaryAccuracy,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from secretflow.ml.nn.core.torch import BaseModule, TorchModel
from secretflow.ml.nn.fl.backend.torch.row_metrics import RowMetrics, class_numbers, counts_by_row
from secretflow.ml.nn.fl.backend.torch.steps import use_default_steps

KINDS = (MulticlassAccuracy, MulticlassF1Score, MulticlassConfusionMatrix)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=80),
    one_hot=st.booleans(),
    reads=st.sets(st.integers(0, 79)),
    seed=st.integers(0, 99),
)
def test_counting_later_gives_the_same_numbers(
    sizes: list[int], one_hot: bool, reads: set[int], seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    late, soon = ([kind(num_classes=4) for kind in KINDS] for _ in range(2))
    rows = RowMetrics(late, at_once=True)
    for number, size in enumerate(sizes):
        predicted, y = torch.randn(size, 4, generator=draw), torch.randint(4, (size,), generator=draw)
        labels = nn.functional.one_hot(y, 4).float() if one_hot else y.float()
        rows.count(predicted, labels)
        for metric in soon:
            metric.update(predicted, y)
        # Whoever made the batch fills its memory with the next one.
        predicted.zero_()
        labels.zero_()
        if number in reads or number == len(sizes) - 1:
            rows.count_held()
            for ours, expected in zip(late, soon, strict=True):
                assert torch.equal(ours.compute(), expected.compute())


def test_batches_of_other_shapes_and_types_are_counted_apart() -> None:
    metric = MulticlassAccuracy(3, average="micro")
    rows = RowMetrics([metric], at_once=True)
    rows.count(torch.eye(3), torch.tensor([0, 1, 0]))
    rows.count(torch.eye(3)[:, :, None].expand(3, 3, 5), torch.zeros(3, 5, dtype=torch.long))
    rows.count(torch.eye(3).double(), torch.tensor([0.0, 1.0, 2.0]))
    rows.count_held()
    assert metric.compute() == pytest.approx((2 + 5 + 3) / (3 + 15 + 3))


def test_only_counts_of_rows_wait() -> None:
    class Batches(MulticlassAccuracy):
        """Counts batches."""

    assert all(counts_by_row(kind(num_classes=2)) for kind in KINDS)
    assert not counts_by_row(Batches(num_classes=2))
    assert not counts_by_row(BinaryAccuracy())  # logits or probabilities, by what is in the batch
    assert not counts_by_row(torchmetrics.MeanSquaredError())  # depends on the order of additions
    metric = Batches(num_classes=2)
    RowMetrics([metric], at_once=True).count(torch.eye(2), torch.arange(2))
    assert metric.compute() == 1


def test_a_step_of_ones_own_finds_the_metrics_of_its_batch() -> None:
    seen = []

    class Net(BaseModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

        def training_step(self, batch, *args, **kwargs):
            _, loss = self.forward_step(batch, *args)
            seen.append(float(self.metrics[0].compute()))
            return loss

    definition = TorchModel(
        model_fn=Net, loss_fn=nn.CrossEntropyLoss, metrics=[lambda: MulticlassAccuracy(2, average="micro")]
    )
    model = definition.build()
    use_default_steps(model)
    with torch.no_grad():
        model.layer.weight.copy_(torch.eye(2))
    model.training_step((torch.eye(2), torch.tensor([0.0, 0.0])), 0)
    assert seen == [0.5]


def test_numbers_of_classes() -> None:
    numbers, predicted = torch.tensor([2, 0]), torch.zeros(2, 3)
    for y in (numbers, numbers.float(), numbers[:, None], nn.functional.one_hot(numbers, 3).float()):
        assert torch.equal(class_numbers(predicted, y), numbers)
