"""FedAvg with pruning, as ``FLModel`` finds it: one party's actor."""

# Annotations stay objects here: the proxy reads from ``Tuple`` how many objects a method returns.
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import torch

from secretflow.ml.nn.core.torch import BuilderType
from secretflow.ml.nn.fl.backend.torch.list_masks import (
    ListMask,
    from_list,
    full_list_mask,
    mask_model,  # noqa: F401 - found here by the names of the first version
    prune_by_percentile,  # noqa: F401
)
from secretflow.ml.nn.fl.backend.torch.masked_model import tensors_of
from secretflow.ml.nn.fl.backend.torch.own_norms import names_without_norms
from secretflow.ml.nn.fl.backend.torch.strategy.fed_avg_w import FedAvgW
from secretflow.ml.nn.fl.epoch_reports import Measured
from secretflow.ml.nn.fl.plan import PartyState, Round
from secretflow.ml.nn.fl.pruning import PruneSettings, density
from secretflow.ml.nn.fl.strategy_dispatcher import register_strategy
from secretflow.ml.nn.fl.worker.capture import GradientCapture
from secretflow.ml.nn.fl.worker.data import nan_in, rows_by_round
from secretflow.ml.nn.fl.worker.generators import reseed
from secretflow.ml.nn.fl.worker.incoming import IncomingWeights
from secretflow.ml.nn.fl.worker.lone_rows import size_of
from secretflow.ml.nn.fl.worker.party_data import PartyData
from secretflow.ml.nn.fl.worker.rounds import PartyRounds
from secretflow.ml.nn.fl.worker.saving import WithFiles
from secretflow.ml.nn.fl.worker.structured import masked_model
from secretflow.ml.nn.fl.worker.surviving_party import SurvivingParty
from secretflow.ml.nn.fl.worker.totals import PartyTotals
from secretflow.ml.nn.fl.worker.trainer import LocalObjective, make_trainer
from secretflow.ml.nn.fl.worker.training import LocalTraining, PartyFit
from secretflow.security.aggregation.secagg.participant import Participant


class FedAvgWPrune(SurvivingParty, PartyTotals, WithFiles, Participant, PartyData, FedAvgW):
    """FedAvg in which every party prunes its model step by step and uploads only what lives.

    Args:
        builder_base: how the model is built.
        random_seed: seed of the initial weights.
        skip_bn: leaves batch normalisation layers out of the aggregation.
        settings: what the user chose about pruning.
        objective: what a party minimises.
        gradient_capture: which gradients to write to this party's own disk for the leakage audit.
        party: own name.
        accept_degenerate_layers: see :class:`~secretflow.ml.nn.fl.worker.incoming.IncomingWeights`.
        **kwargs: upstream's, ``use_gpu`` among them.

    Raises:
        ValueError: the model has nothing to prune.
    """

    def __init__(
        self,
        builder_base: BuilderType,
        random_seed: int | None = None,
        skip_bn: bool = False,
        settings: PruneSettings = PruneSettings(),  # noqa: B008 - frozen
        objective: LocalObjective = LocalObjective(),  # noqa: B008 - frozen
        gradient_capture: GradientCapture | None = None,
        party: str = "",
        accept_degenerate_layers: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(builder_base, random_seed=random_seed, skip_bn=skip_bn, **kwargs)
        self._settings = settings
        self._gradient_capture = gradient_capture
        # Such as a causal mask of minus infinity: it has no average, and every party has its own.
        self._own_buffers = frozenset(
            name for name, buffer in self.model.named_buffers() if not torch.isfinite(buffer).all()
        )
        self._party = party
        self._masked = masked_model(self.model, self.model._optimizers, settings)
        self._training = LocalTraining(
            self._masked,
            make_trainer(self.model, self.next_batch, objective),
            self._averaged,
            self._reset_data_iter,
            lambda: nan_in(self.train_set),
            lambda: size_of(self.train_set),
            settings,
            party,
            gradient_capture,
            IncomingWeights(self.model, party, accept_degenerate_layers),
        )
        self._rounds: PartyRounds | None = None
        self._last_loss: float | None = None
        self._last_rows = 0

    def make_prune_mask(self) -> ListMask:
        """A mask under which every weight lives, see :mod:`~secretflow.ml.nn.fl.backend.torch.list_masks`."""
        return full_list_mask(self.model, tuple(self._masked.mask))

    def prune_state(self) -> Tuple[ListMask, float]:
        """The current mask and its density."""
        return self._masked.list_for(self._averaged()), density(self._masked.mask)

    def densities(self) -> Dict[str, float]:
        """Fraction of living weights, of each prunable layer by name and of all under the empty name."""
        return self._masked.densities()

    def get_weights(self, return_numpy: bool = True) -> List[Any]:
        """A copy of what is averaged, as arrays or as tensors; pruned weights are zero."""
        self._masked.zero_pruned()
        tensors = [value.detach().clone() for value in self._averaged().values()]
        return [value.numpy(force=True) for value in tensors] if return_numpy else tensors

    def set_weights(self, weights: List[np.ndarray]) -> None:
        """Takes aggregated weights that are to be trained on; what the own mask has pruned stays zero."""
        self._training.check(weights)
        self._training.take(weights)

    def party_state(self, steps: int) -> PartyState:
        """What a plan needs to know; whatever has begun before is given up.

        Args:
            steps: batches of an epoch.
        """
        self.abandon()
        sizes, living = self._masked.counts()
        if self._settings.prune_scope == "global":
            # How many live in which layer goes by the weights, and a plan needs their sum alone.
            living = [sum(living) - (len(living) - 1)] + [1] * (len(living) - 1)
        rows_known = rows_by_round(self.train_set, [steps]) is not None
        return PartyState(sizes=sizes, living=living, rows_known=rows_known)

    def begin_fit(self, start: int, fit: PartyFit, rows_known: bool) -> None:
        """Begins what :meth:`PartyRounds.start` exchanges.

        Args:
            start: numbers the calls, see :meth:`Participant.begin_request`.
            fit: what the user chose for this fit.
            rows_known: whether all parties know beforehand how many rows each round trains on.
        """
        reseed(fit)
        rows = rows_by_round(self.train_set, fit.ends_of_rounds(self._party)) if rows_known else None
        self._rounds = PartyRounds(self._client, self._training, self._settings, fit, rows)
        # All begin with an average of weights that no party has trained on since, so anew.
        self._begin(start, self._rounds.start(), anew=True)

    def begin_rounds(self, start: int, rounds: Sequence[Round]) -> None:
        """Begins what :meth:`PartyRounds.rounds` exchanges.

        Args:
            start: numbers the calls, see :meth:`Participant.begin_request`.
            rounds: of the fit that :meth:`begin_fit` began.
        """
        if self._rounds is None:
            raise RuntimeError("load_model must be called between two fits, got a call within one")
        self._begin(start, self._rounds.rounds(rounds))

    def train_step(
        self, weights: List[np.ndarray] | None, cur_steps: int, train_steps: int, **kwargs: Any
    ) -> Tuple[List[np.ndarray], int]:
        """Trains on the next batches.

        Args:
            weights: aggregated weights to start from; None goes on with the own ones.
            cur_steps: number of the first step since training began.
            train_steps: how many batches to train on, at least 1.
            **kwargs: ``refresh_data`` starts the data anew, ``random_seed`` of the fit then gives this epoch
                its order of rows, ``dp_strategy`` adds noise to the upload.

        Returns:
            The weights to upload, and the number of samples they were trained on.
        """
        samples = self._train(weights, cur_steps, train_steps, **kwargs)
        return self._own_upload(kwargs), samples

    def train_step_with_prune(
        self,
        weights: List[np.ndarray] | None,
        cur_steps: int,
        train_steps: int,
        prune_current_mask: ListMask,
        prune_current_rate: float,
        is_update_mask: bool,
        epoch: float | None = None,
        **kwargs: Any,
    ) -> Tuple[List[np.ndarray], int, ListMask, float]:
        """Trains on the next batches in a round that a step of pruning may end.

        Args:
            weights: as for :meth:`train_step`.
            cur_steps: as for :meth:`train_step`.
            train_steps: as for :meth:`train_step`.
            prune_current_mask: the mask to train under.
            prune_current_rate: the density of that mask, which follows from it.
            is_update_mask: whether a step of pruning may end this round; where it is due and masks are a
                party's own, the model is pruned before it is uploaded.
            epoch: how many epochs have been trained when the round ends, the part of a begun one included;
                None stands for the last round of an epoch.
            **kwargs: as for :meth:`train_step`.

        Returns:
            The weights to upload, the number of samples, the new mask and the new rate.
        """
        self._masked.use(from_list(self.model, prune_current_mask))
        samples = self._train(weights, cur_steps, train_steps, **kwargs)
        if is_update_mask and self._settings.mask_scope == "local":
            # Of no fit: an end that follows from its epochs is the earliest that there is.
            self._training.prune(self._settings.over(0), len(self.epoch) + 1 if epoch is None else epoch)
        return (self._own_upload(kwargs), samples, *self.prune_state())

    def epoch_is_over(self) -> bool:
        """Whether an epoch has been trained that :meth:`end_epoch` has not counted: a driver was stopped."""
        return self._rounds is not None and self._rounds.epoch_is_over

    def rounds_ended(self) -> int:
        """How many rounds of the last fit have come to their end, those that were lost included."""
        return 0 if self._rounds is None else self._rounds.ended

    def end_epoch(self) -> None:
        """Takes the metrics of an epoch whose last average has been taken up, and counts it."""
        if self._rounds is not None:
            self._rounds.epoch_is_over = False
        self._last_loss = loss = self._training.trainer.take_mean_loss()
        self._last_rows = self._rows_counted
        # A model that steps its optimisers itself need not return a loss.
        self.logs = self.transform_metrics({} if loss is None else {"train-loss": loss})
        self.epoch_logs = dict(self.logs)
        # Anew in each epoch: the history takes all of them from here every time it looks.
        self.wrapped_metrics = self.wrap_local_metrics()
        self.epoch.append(len(self.epoch))

    def measured(self) -> Measured:
        """What the party has measured in the last epoch, its evaluation included."""
        return {
            "loss": self._last_loss,
            "rows": self._last_rows,
            "logs": dict(self.logs or {}),
            "metrics": list(self.wrapped_metrics),
            "densities": self.densities(),
            "clipped": self._training.updates.take_clipped(),
            "train_seconds": self._training.take_seconds(),
            "aggregate_seconds": self._client.usage.take_seconds(),
        }

    def epochs_trained(self) -> int:
        """How many epochs this model has been trained for, those before it was saved and loaded included."""
        return len(self.epoch)

    def check_capture(self) -> None:
        """Looks whether the gradients to capture have a place.

        Raises:
            FileExistsError: they have none, see :meth:`GradientCapture.check_free`.
        """
        if self._gradient_capture and self._gradient_capture.party == self._party:
            self._gradient_capture.check_free(self._training.rounds_trained)

    def get_logs(self) -> Dict[str, Any] | None:
        """The metrics of the last epoch, for upstream's callbacks; upstream's own prints them as well."""
        return self.logs

    def load_model(self, model_path: str, epoch: int | None = None) -> int:
        """Loads as :meth:`WithFiles.load_model` says; whatever has begun before is given up."""
        self.abandon()  # a round that was broken off would put its mask over the loaded one later
        trained = super().load_model(model_path, epoch)
        self._rounds = None  # what a running fit has agreed on belongs to the model before
        return trained

    def _train(
        self,
        weights: List[np.ndarray] | None,
        cur_steps: int,
        train_steps: int,
        refresh_data: bool = False,
        random_seed: int | None = None,
        **_: Any,
    ) -> int:
        if refresh_data:
            self._training.begin_epoch(len(self.epoch), random_seed)
        if weights is not None:
            self.set_weights(weights)
        return self._training.train_steps(cur_steps, train_steps)

    def _own_upload(self, kwargs: Dict[str, Any]) -> List[np.ndarray]:
        """A copy of what is uploaded: it leaves this actor by itself."""
        self._training.withhold()
        fit = PartyFit(steps=1, dp_strategy=kwargs.get("dp_strategy"))
        return [array.copy() for array in self._training.noised(self._training.arrays(), fit)]

    def _averaged(self) -> Dict[str, torch.Tensor]:
        """What is averaged, sharing memory with the model."""
        state = {n: v for n, v in tensors_of(self.model).items() if n not in self._own_buffers}
        kept = names_without_norms(self.model) if self.skip_bn else state
        return {name: state[name] for name in kept if name in state}


@register_strategy(strategy_name="fed_avg_w_prune", backend="torch")
class PYUFedAvgWPrune(FedAvgWPrune):
    """The strategy as ``FLModel`` finds it."""
