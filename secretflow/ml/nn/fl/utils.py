"""Wrappers that pass a class and its arguments to the parties, where it is built."""

from secretflow.ml.nn.core.torch import loss_wrapper, metric_wrapper, optim_wrapper

__all__ = ["loss_wrapper", "metric_wrapper", "optim_wrapper"]
