"""What a user chooses about pruning: one frozen value, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from inspect import signature
from typing import Any, TypeAlias

from secretflow import _validate

from .curves import EPOCHS_OF_CUBIC, cubic, cubic_geometric
from .presets import PRESETS, preset_for
from .scores import CRITERIA

MASK_SCOPES = ("local", "global")
PRUNE_SCOPES = ("layer", "global")
PRUNE_SCHEDULES = ("geometric", "cubic", "cubic-geometric")
PRUNE_STRUCTURES = ("filter", "neuron", "unit")

Prunable: TypeAlias = "str | Sequence[str] | Callable[[str, Any], bool] | None"
"""Names or patterns of parameters, a function that chooses them, or None."""

_AS_PRESET: Any = None
"""Stands where a setting is left to the preset; once a value is made, the preset's stands there."""

_PART_OF_FIT = 0.75
_STEPS_OF_EPOCH = 4


@dataclass(frozen=True)
class PruneSettings:
    """What a user chooses about pruning; what is left out is as the preset says.

    Attributes:
        prune_end_rate: density, over all layers, at which pruning stops, in (0, 1]; rounded down to whole
            weights. 1 prunes nothing.
        prune_preset: where the settings come from that are left out (None), of
            :data:`~secretflow.ml.nn.fl.pruning.PRESETS`. "shared": ``mask_scope="global"``,
            ``prune_scope="global"``, ``prune_criterion="lamp"``, ``prune_schedule="cubic-geometric"``,
            ``step_power=0.5``. "lottery": ``mask_scope="local"``, ``prune_scope="layer"``,
            ``prune_criterion="magnitude"``, ``prune_schedule="geometric"``, ``prune_percent=5``,
            ``prune_freq=0``, ``step_power=0``. None: "lottery" where ``prune_percent``,
            ``prune_structure``, ``regrow_percent`` or a criterion that looks at gradients is given, "shared"
            elsewhere.
        prune_percent: percent of the living weights that one step of the geometric schedule removes, in
            (0, 100), rounded down to whole weights; see :func:`~secretflow.ml.nn.fl.pruning.removals`. The
            others do not use it.
        mask_scope: "global": all parties prune the averaged weights, so all come to the same mask without a
            word. "local": each party prunes its own weights before it uploads them and keeps its own mask.
            That costs accuracy where the parties' rows differ, since a weight is then averaged over few of
            them: at density 0.1, with labels dealt out by a Dirichlet distribution (0.5), 14, 17 and 35
            points below dense with ten parties (two nets for images, an LSTM) and 0.9 with five (a table),
            where one mask is 0.1, 0.5, 0.9 and -0.6 below (``docs/results/sparse.md``). Each step also costs
            an agreement on the new masks.
        prune_scope: "layer": each layer gives its share. "global": the weights of the smallest score of all
            layers go first.
        prune_schedule: "geometric": a step removes ``prune_percent`` of what lives. "cubic": the density
            falls as a cubic from 1 to ``prune_end_rate``, fast at first (Zhu and Gupta 2017, section 3).
            "cubic-geometric": it falls as a cubic within an epoch to half of the way, counted in factors: to
            ``prune_end_rate ** (1 / 2)``; and by equal factors to ``prune_end_rate`` until
            ``prune_end_epoch``. The last weights then go while the others learn to do without them, at a
            fifth to nearly a half more upload: ten parties with skewed labels lose 2.3 points instead of 4.1
            at density 0.01, and 1.2 instead of 2.2 at 0.02 (ResNet-20, ``docs/results/sparse.md``).
        prune_freq: rounds from one step to the next within an epoch. The last round of an epoch always ends
            with one, also if this does not divide the epoch's rounds, and with 0 no other does; None is four
            steps an epoch. With the cubic schedule it sets how fine the curve's steps are, with the geometric
            one every step removes ``prune_percent``.
        prune_start_epoch: epochs to train before pruning starts, at least 0; the first step comes after
            them.
        prune_end_epoch: epoch at whose end a schedule other than the geometric one reaches
            ``prune_end_rate``, above ``prune_start_epoch``; the epochs after it train what is left. None is
            two epochs after ``prune_start_epoch`` with "cubic". With "cubic-geometric" None is three quarters
            of the epochs from ``prune_start_epoch`` to the last one of the fit, those trained before it
            included, rounded down, and at least two.
        regrow_percent: percent of the living weights, in [0, 100), that a step exchanges in each layer: it
            removes that many of the smallest more, and revives as many pruned ones, those of the largest
            gradient, at zero (Evci et al. 2020, section 3). Steps then go on to the last epoch. Only with
            ``mask_scope="local"``, since gradients are a party's own.
        withhold_percent: percent of what lives, in [0, 100), rounded to whole weights, that a party keeps to
            itself in a round: those trained parameters, of all layers together, that differ most from the
            average that the round began with (Chu et al. 2023, "PriPrune", arXiv 2310.19958). There it
            uploads that average, as if it had not trained them, so that the denominators of the average stay
            the same; it starts the next round with the differences on top of the new average. What is
            evaluated, saved as the model and exported is the average without them. It costs accuracy. 0
            withholds nothing.
        prune_criterion: which weights go first. "magnitude": the smallest. "lamp": those that
            are the smallest part of what is left of their layer, so that layers can be compared; it needs
            ``prune_scope="global"`` to differ from "magnitude". "snip": those whose removal
            changes the loss least, judged by the gradient of the round's last batch; only with
            ``mask_scope="local"``, as ``regrow_percent``. See :mod:`~secretflow.ml.nn.fl.pruning.scores`.
        step_power: the step that an optimiser takes in a layer is multiplied with the layer's density to the
            power of minus this, in [0, 1]. The fewer weights feed a unit, the more each must move for the
            unit to learn as fast. 1 is the rule for Adam and its kind of Dey et al., "Sparse maximal update
            parameterization", NeurIPS 2024, section 3; 0 leaves the steps as they are. Gradients are not
            changed, so weight decay that is part of a step grows with it.
        prunable: which parameters are pruned, among those of floats of two or more dimensions: names as in
            ``model.state_dict()``, or patterns such as "encoder.*" (:mod:`fnmatch`), each of which must fit
            at least one; or a function that gets a name and a parameter and says whether, from what is the
            same at all parties. None: the weights of linear, convolution (also transposed), embedding,
            recurrent (LSTM, GRU, RNN) and attention layers.
        prune_structure: what a step removes. None: single weights. "filter": output channels of
            convolutions; "neuron": outputs of linear layers; "unit": both. Then ``prune_end_rate``,
            ``prune_percent`` and the schedule count these units, not weights: when half of all units are
            left, about a quarter of the weights live, since what reads a removed unit goes as well.
            ``prunable`` chooses the weights that may lose outputs, None all that can: the model's outputs
            stay, and so do units that cannot be followed through the model. See
            :mod:`~secretflow.ml.nn.fl.pruning.structure`. Not with ``regrow_percent``.

    Raises:
        TypeError: a number is not a number, or ``prunable`` is neither names nor a function.
        ValueError: a value is out of its range or unknown, or two do not go together.
    """

    prune_end_rate: float = 0.1
    prune_preset: str = _AS_PRESET
    prune_percent: float = _AS_PRESET
    mask_scope: str = _AS_PRESET
    prune_scope: str = _AS_PRESET
    prune_schedule: str = _AS_PRESET
    prune_freq: int | None = _AS_PRESET
    prune_start_epoch: int = 0
    prune_end_epoch: int | None = None
    regrow_percent: float = 0.0
    withhold_percent: float = 0.0
    prune_criterion: str = _AS_PRESET
    step_power: float = _AS_PRESET
    prunable: Prunable = None
    prune_structure: str | None = None

    def __post_init__(self) -> None:
        _validate.plain_fields(self)
        self._take_preset()
        number, integer, one_of, check = (
            _validate.number,
            _validate.integer,
            _validate.one_of,
            _validate.check,
        )
        number("prune_end_rate", self.prune_end_rate, above=0, at_most=1)
        number("prune_percent", self.prune_percent, above=0, below=100)
        number("regrow_percent", self.regrow_percent, at_least=0, below=100)
        number("withhold_percent", self.withhold_percent, at_least=0, below=100)
        number("step_power", self.step_power, at_least=0, at_most=1)
        by_weight = self.prune_structure is None or not self.step_power
        check(by_weight, "step_power", self.step_power, "0 with prune_structure, where it was not measured")
        one_of("mask_scope", self.mask_scope, MASK_SCOPES)
        one_of("prune_scope", self.prune_scope, PRUNE_SCOPES)
        one_of("prune_schedule", self.prune_schedule, PRUNE_SCHEDULES)
        one_of("prune_criterion", self.prune_criterion, CRITERIA)
        one_of("prune_structure", self.prune_structure, (None, *PRUNE_STRUCTURES))
        if self.prune_structure is not None:
            what = f"0 with prune_structure={self.prune_structure!r}, for a removed unit has no gradient"
            check(not self.regrow_percent, "regrow_percent", self.regrow_percent, what)
        integer("prune_freq", self.prune_freq, at_least=0, optional=True)
        integer("prune_start_epoch", self.prune_start_epoch, at_least=0)
        end = self.prune_end_epoch
        if self.prune_schedule == "geometric":
            check(
                end is None, "prune_end_epoch", end, "None with prune_schedule='geometric', which has no end"
            )
        else:
            if end is None and self.prune_schedule == "cubic":
                object.__setattr__(self, "prune_end_epoch", self.prune_start_epoch + EPOCHS_OF_CUBIC)
            at_least = self.prune_start_epoch + 1
            integer("prune_end_epoch", self.prune_end_epoch, at_least=at_least, optional=True)
        if callable(self.prunable):
            what = "a function of two arguments, the name of a parameter and the parameter"
            check(_takes_two(self.prunable), "prunable", self.prunable, what, TypeError)
        elif self.prunable is not None:
            names = (self.prunable,) if isinstance(self.prunable, str) else self.prunable
            fits = isinstance(names, (tuple, list)) and all(isinstance(name, str) and name for name in names)
            what = "names or patterns of parameters, or a function of a name and a parameter"
            check(fits and len(names) > 0, "prunable", self.prunable, what, TypeError)
            object.__setattr__(self, "prunable", tuple(names))
        if self.mask_scope == "global":
            what = "with mask_scope='global', since gradients are a party's own"
            check(not self.regrow_percent, "regrow_percent", self.regrow_percent, f"0 {what}")
            blind = not CRITERIA[self.prune_criterion].needs_gradient
            check(blind, "prune_criterion", self.prune_criterion, f"one that needs no gradients {what}")

    def _take_preset(self) -> None:
        if self.prune_preset is None:
            by_gradient = [name for name, criterion in CRITERIA.items() if criterion.needs_gradient]
            gradients = bool(self.regrow_percent) or self.prune_criterion in by_gradient
            chosen = preset_for(
                percent=self.prune_percent is not None,
                structure=self.prune_structure is not None,
                gradients=gradients,
            )
            object.__setattr__(self, "prune_preset", chosen)
        _validate.one_of("prune_preset", self.prune_preset, tuple(PRESETS))
        for name, value in PRESETS[self.prune_preset].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the settings."""
        return tuple(field.name for field in fields(cls))

    @property
    def needs_gradients(self) -> bool:
        """Whether a step of pruning looks at gradients."""
        return self.regrow_percent > 0 or CRITERIA[self.prune_criterion].needs_gradient

    def over(self, epochs: int) -> PruneSettings:
        """The settings of a fit, in which ``prune_end_epoch`` is known where the schedule has an end.

        Args:
            epochs: how many will have been trained after the fit.
        """
        if self.prune_end_epoch is not None or self.prune_schedule == "geometric":
            return self
        pruned = max(EPOCHS_OF_CUBIC, math.floor(_PART_OF_FIT * (epochs - self.prune_start_epoch)))
        return replace(self, prune_end_epoch=self.prune_start_epoch + pruned)

    def step_may_end(self, number: int, rounds: int) -> bool:
        """Whether a step of pruning may end a round.

        Args:
            number: of the round in its epoch, from 1.
            rounds: of the epoch.
        """
        if self.prune_freq is None:
            return _STEPS_OF_EPOCH * number // rounds > _STEPS_OF_EPOCH * (number - 1) // rounds
        return number == rounds or (self.prune_freq > 0 and number % self.prune_freq == 0)

    def step_due(self, epoch: float, rate: float) -> bool:
        """Whether a step of pruning is due in a round that a step may end.

        Args:
            epoch: how many epochs have been trained when the round ends, the part of a begun one included.
            rate: the density so far.
        """
        return epoch > self.prune_start_epoch and (rate > self.prune_end_rate or self.regrow_percent > 0)

    def rate_after(self, epoch: float) -> float:
        """The lowest density that a step may reach, in (0, 1].

        Args:
            epoch: as for :meth:`step_due`; above ``prune_start_epoch``.

        Raises:
            ValueError: ``prune_end_epoch`` depends on a fit, see :meth:`over`.
        """
        if self.prune_schedule == "geometric":
            return self.prune_end_rate
        if self.prune_end_epoch is None:
            raise ValueError("prune_end_epoch must be known for a density, got settings that are of no fit")
        passed, last = epoch - self.prune_start_epoch, self.prune_end_epoch - self.prune_start_epoch
        if self.prune_schedule == "cubic":
            return cubic(passed / last, self.prune_end_rate)
        return cubic_geometric(passed, last, self.prune_end_rate)


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        signature(function).bind("name", "parameter")
    except TypeError:
        return False
    except ValueError:  # of a builtin nothing is known
        return True
    return True
