"""``fit`` shows its arguments, to people and to tools."""

from __future__ import annotations

import inspect

from secretflow._overlay import upstream
from secretflow.ml.nn import FLModel


def test_fit_has_the_arguments_and_the_defaults_of_upstream_and_one_behind() -> None:
    ours, theirs = (
        {name: parameter.default for name, parameter in inspect.signature(fit).parameters.items()}
        for fit in (FLModel.fit, upstream("secretflow.ml.nn.fl.fl_model").FLModel.fit)
    )
    assert list(ours.items()) == [*theirs.items(), ("steps_per_epoch", None)]
