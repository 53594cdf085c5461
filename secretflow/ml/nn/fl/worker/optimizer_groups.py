"""What a model trains: the parameters of its optimisers' groups, and those that are not frozen, by name.

A program may change both while it trains, for example unfreeze a layer and give it to the optimiser with
``add_param_group``. A checkpoint says how they were, and how the program had built them: the same program
then goes on where it was, and another one is told apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from torch import nn, optim

Groups: TypeAlias = "list[tuple[str, list[list[str]]]]"


class Trained(NamedTuple):
    """What a model trains.

    Attributes:
        groups: of each optimiser its class by name, and of each of its groups the parameters; "" stands for
            one that is not the model's.
        free: the parameters that are not frozen.
    """

    groups: Groups
    free: list[str]

    @classmethod
    def of(cls, net: nn.Module, optimizers: list[optim.Optimizer]) -> Trained:
        """What a model trains now.

        Args:
            net: the model.
            optimizers: its own.
        """
        names = {id(parameter): name for name, parameter in net.named_parameters()}
        groups = [
            (
                type(optimizer).__name__,
                [[names.get(id(each), "") for each in group["params"]] for group in optimizer.param_groups],
            )
            for optimizer in optimizers
        ]
        return cls(groups, [name for name, each in net.named_parameters() if each.requires_grad])

    @property
    def sizes(self) -> list[tuple[str, list[int]]]:
        """Of each optimiser its class, and how many parameters each of its groups has."""
        return [(kind, [len(names) for names in groups]) for kind, groups in self.groups]

    @property
    def is_named(self) -> bool:
        """Whether all parameters of the groups are the model's."""
        return all(name for _, groups in self.groups for names in groups for name in names)


def train_as(trained: Trained, net: nn.Module, optimizers: list[optim.Optimizer]) -> None:
    """Has a model train what it trained; the options of a group are the optimiser's defaults where it is new.

    Args:
        trained: of the same model and optimisers, with names alone.
        net: the model, changed in place.
        optimizers: its own, changed in place.
    """
    parameters = dict(net.named_parameters())
    for name, parameter in parameters.items():
        if parameter.requires_grad != (name in trained.free):
            parameter.requires_grad_(name in trained.free)
    for optimizer, (_, groups) in zip(optimizers, trained.groups, strict=True):
        own: list[dict[str, Any]] = optimizer.param_groups
        del own[len(groups) :]
        own += [dict(optimizer.defaults) for _ in groups[len(own) :]]
        for group, names in zip(own, groups, strict=True):
            group["params"] = [parameters[name] for name in names]
