"""FedAvg with pruning: a party trains, prunes by magnitude and uploads what lives."""

# Annotations stay objects here: the proxy reads from ``Tuple`` how many objects a method returns.
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np
import torch

from secretflow.ml.nn.core.torch import BuilderType
from secretflow.ml.nn.fl.attacks.capture import GradientCapture, optimizer_settings, write_capture
from secretflow.ml.nn.fl.backend.torch.checkpoint import newest_epoch, read_checkpoint, write_checkpoint
from secretflow.ml.nn.fl.backend.torch.masked_model import (
    entry_as_tensor,
    mask_model,  # noqa: F401 - found here by the names of the first version
    masked_weights,
    prune_by_percentile,  # noqa: F401
    prune_model,
)
from secretflow.ml.nn.fl.backend.torch.rows import fetching_batches, rows_of_batches
from secretflow.ml.nn.fl.backend.torch.strategy.fed_avg_w import FedAvgW
from secretflow.ml.nn.fl.backend.torch.withholding import Withholding
from secretflow.ml.nn.fl.pruning import Mask, PruneSettings, living_rate
from secretflow.ml.nn.fl.sparse_model import export_sparse
from secretflow.ml.nn.fl.strategy_dispatcher import register_strategy
from secretflow.security.aggregation.prune.party import Sealer
from secretflow.security.aggregation.prune.payload import Payload

_SEED_STRIDE = 1_000_003  # far apart, so that neighbouring seeds do not share the order of an epoch


class FedAvgWPrune(FedAvgW):
    """FedAvg in which every party prunes its model step by step and uploads only what lives.

    A pruned weight is zero after every optimiser step, whichever optimiser takes it: a hook on the
    optimisers sets it back, so that momentum cannot revive it.

    Args:
        builder_base: how the model is built.
        random_seed: seed of the initial weights.
        skip_bn: leaves batch normalisation layers out of the aggregation.
        settings: what the user chose about pruning.
        gradient_capture: which gradients to write to this party's own disk for the leakage audit.
        party: own name.
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
        gradient_capture: GradientCapture | None = None,
        party: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(builder_base, random_seed=random_seed, skip_bn=skip_bn, **kwargs)
        self._settings = settings
        self._gradient_capture = gradient_capture
        self._party = party
        self._rounds = 0
        self._seconds = 0.0
        self._loss: torch.Tensor | None = None  # of the last step
        self._mask_changed = False
        part = settings.withhold_percent / 100
        self._withholding = Withholding(part, self._uploaded_parameters()) if part else None
        self._use_mask(self.make_prune_mask())
        for optimizer in self.model._optimizers:
            optimizer.register_step_post_hook(lambda *_: self._zero_pruned())

    def build_dataset(
        self, x: np.ndarray, y: np.ndarray | None = None, *args: Any, stage: str = "train", **kwargs: Any
    ) -> None:
        """Takes data as upstream does; refuses what are no numbers."""
        for name, array in (("x", x), ("y", y)):
            if array is not None and array.dtype.kind not in "biuf":
                raise TypeError(
                    f"{name} of {self._party} has the dtype {array.dtype}: numbers are needed, for example "
                    f"{name}.astype(numpy.float32)"
                )
        super().build_dataset(x, y, *args, stage=stage, **kwargs)
        name = f"{stage}_set"
        setattr(self, name, fetching_batches(getattr(self, name)))

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
        """
        dataset, steps = dataset_builder(x if isinstance(x, str) else [x, *arrays], stage=stage)
        setattr(self, f"{stage}_set", dataset)
        return steps

    def prune_state(self) -> Tuple[Mask, float]:
        """The current mask and its living rate."""
        return self._mask, living_rate(self._mask)

    def living_rates(self) -> Dict[str, float]:
        """Fraction of living weights, of each prunable layer by name and of all under the empty name."""
        by_layer = {name: living_rate([entry]) for name, _, entry in masked_weights(self.model, self._mask)}
        return {"": living_rate(self._mask), **by_layer}

    def set_weights(self, weights: List[np.ndarray]) -> None:
        """Takes aggregated weights; what the own mask has pruned stays zero."""
        for own, value in zip(self._averaged().values(), weights, strict=True):
            # What comes out of Ray's object store is read-only, which torch warns of.
            own.copy_(torch.as_tensor(value if value.flags.writeable else value.copy()))
        self._zero_pruned()

    def make_sealer(self, *arguments: Any) -> None:
        """Takes in this party's end of the aggregation, see :class:`Sealer`: a process less."""
        self._sealer = Sealer(*arguments)

    def sealer(self, name: str, *arguments: Any) -> Any:
        """Calls a method of the :class:`Sealer` taken in."""
        return getattr(self._sealer, name)(*arguments)

    def open_average(self, average: Payload) -> None:
        """Opens the average of the last upload and takes it up; what did not travel keeps the own weight.

        What the own mask has pruned stays zero.

        Args:
            average: sum of the payloads.
        """
        arrays = self._live_arrays()
        self._sealer.open_into(average, arrays)
        if self.exe_device.type != "cpu":
            self.set_weights(arrays)

    def rows_by_round(self, steps: int, aggregate_freq: int) -> Tuple[List[int], bool]:
        """How many rows this party trains on in each round of an epoch, and whether that is known before.

        Args:
            steps: batches of an epoch.
            aggregate_freq: batches of a round; the last one may have fewer.
        """
        rows = rows_of_batches(self.train_set, steps)
        if rows is None:
            return [], False
        return [sum(rows[k : k + aggregate_freq]) for k in range(0, steps, aggregate_freq)], True

    def expect_rows(self, *rows_by_round: List[int]) -> None:
        """Takes everybody's rows in each round of an epoch, in the order of the parties."""
        self._expected_rows = list(zip(*rows_by_round, strict=True))

    def train_and_seal(
        self,
        average: Payload | None,
        call: int,
        number: int,
        how: Dict[str, Any],
        prune: Dict[str, Any] | None = None,
    ) -> Payload:
        """One round: opens, trains and seals.

        The same numbers as of the sealer's ``open``, :meth:`train_step` and the sealer's ``seal``, in one
        message instead of three. Nothing is said to the other parties in between, unless a step of pruning
        ends the round: then the new masks are agreed on over the sealer's channel.

        Args:
            average: sum of the last round's payloads; None goes on with the own weights.
            call: number of the aggregator's call.
            number: number of the round in the epoch, for the rows that everybody trains on.
            how: further arguments of :meth:`train_step` by name; one dictionary is sent with less work than
                each by itself.
            prune: if a step of pruning of the own weights ends the round, and only with a channel: ``epoch``
                as for :meth:`train_step_with_prune`, and ``call`` and ``shrunk`` of :meth:`Sealer.propose`.

        Returns:
            The padded upload.
        """
        if average is not None:
            self.open_average(average)
        step = None
        if prune is not None:
            step = partial(self._prune_if_due, prune["epoch"], living_rate(self._mask))
        self._train(None, prune=step, **how)
        upload = self._upload(how["dp_strategy"], self._live_arrays())
        if prune is not None:
            # After the upload is made: if the others have gone, nothing withheld is left in the weights.
            self._sealer.send(self._sealer.propose(prune["call"], upload, self._mask, prune["shrunk"]))
            self._sealer.settle(self._sealer.receive())
        return self._sealer.seal(call, True, True, upload, *self._expected_rows[number])

    def train_rounds(
        self,
        calls: List[int],
        number: int,
        how: List[Dict[str, Any]],
        prune: Dict[str, Any] | None = None,
    ) -> None:
        """Several rounds in which the sums come and go over the sealer's channel; the last sum does not come.

        The same numbers as of :meth:`train_and_seal` for each of them.

        Args:
            calls: numbers of the aggregator's calls.
            number: number of the first round in the epoch, see there.
            how: for each round, see there.
            prune: for the last round, see there.
        """
        average = None  # has been taken up before the first round
        try:
            for k, call in enumerate(calls):
                if k:
                    average = self._sealer.receive()
                at_end = prune if call == calls[-1] else None
                self._sealer.send(self.train_and_seal(average, call, number + k, how[k], at_end))
        except BaseException:
            self._sealer.hang_up()  # or the others would wait for this party
            raise

    def train_step(
        self, weights: List[np.ndarray] | None, cur_steps: int, train_steps: int, **kwargs: Any
    ) -> Tuple[List[np.ndarray], int]:
        """Trains on the next batches.

        Args:
            weights: aggregated weights to start from; None goes on with the own ones.
            cur_steps: number of the first step since training began.
            train_steps: how many batches to train on, at least 1.
            **kwargs: ``refresh_data`` starts the data and the metrics anew, ``random_seed`` of the fit then
                gives this epoch its order of rows, ``is_last_round`` is the last of the fit, for captures,
                ``dp_strategy`` adds noise to the upload.

        Returns:
            The weights to upload, and the number of samples they were trained on.
        """
        samples = self._train(weights, cur_steps, train_steps, **kwargs)
        return self._upload(kwargs.get("dp_strategy")), samples

    def train_step_with_prune(
        self,
        weights: List[np.ndarray] | None,
        cur_steps: int,
        train_steps: int,
        prune_current_mask: Mask,
        prune_current_rate: float,
        is_update_mask: bool,
        epoch: float | None = None,
        **kwargs: Any,
    ) -> Tuple[List[np.ndarray], int, Mask, float]:
        """Trains on the next batches in a round that a step of pruning may end.

        Args:
            weights: as for :meth:`train_step`.
            cur_steps: as for :meth:`train_step`.
            train_steps: as for :meth:`train_step`.
            prune_current_mask: the mask to train under.
            prune_current_rate: the living rate of that mask.
            is_update_mask: whether a step of pruning may end this round; where it is due and masks are a
                party's own, the model is pruned before it is uploaded.
            epoch: how many epochs have been trained when the round ends, the part of a begun one included;
                None stands for the last round of an epoch.
            **kwargs: as for :meth:`train_step`.

        Returns:
            The weights to upload, the number of samples, the new mask and the new rate.
        """
        self._use_mask(prune_current_mask)
        step = None
        if is_update_mask and self._settings.mask_scope == "local":
            passed = len(self.epoch) + 1 if epoch is None else epoch
            step = partial(self._prune_if_due, passed, prune_current_rate)
        samples = self._train(weights, cur_steps, train_steps, prune=step, **kwargs)
        upload = self._upload(kwargs.get("dp_strategy"))
        return upload, samples, self._mask, living_rate(self._mask)

    def prune_average(self, _: None, epoch: float) -> Tuple[Mask, float]:
        """Prunes the averaged weights and settles the mask, as every party does with ``mask_scope="global"``.

        Args:
            _: of :meth:`open_average`, for the average must have been taken up.
            epoch: how many epochs have been trained with it, the part of a begun one included.

        Returns:
            The new mask, the same at all parties, and its living rate.
        """
        self._prune_if_due(epoch, living_rate(self._mask))
        self._sealer.settle_same(self._live_arrays(), self._mask)
        return self.prune_state()

    def end_epoch(self) -> None:
        """Takes the metrics of an epoch whose last average has been taken up, and counts it."""
        # A model that steps its optimisers itself need not return a loss.
        self.logs = self.transform_metrics({} if self._loss is None else {"train-loss": self._loss.item()})
        self.epoch_logs = dict(self.logs)
        # Anew in each epoch: the history takes all of them from here every time it looks.
        self.wrapped_metrics = self.wrap_local_metrics()
        self.epoch.append(len(self.epoch))

    def epochs_trained(self) -> int:
        """How many epochs this model has been trained for, those before it was saved and loaded included."""
        return len(self.epoch)

    def take_seconds(self) -> float:
        """Seconds spent training since this was asked last."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def check_capture(self) -> None:
        """Looks whether the gradients to capture have a place.

        Raises:
            FileExistsError: they have none, see :meth:`GradientCapture.check_free`.
        """
        if self._gradient_capture and self._gradient_capture.party == self._party:
            self._gradient_capture.check_free(self._rounds)

    def get_logs(self) -> Dict[str, Any] | None:
        """The metrics of the last epoch."""
        return self.logs

    def save_model(self, model_path: str, keep_previous: bool = False) -> None:
        """Writes model, optimisers, epoch and mask, see :func:`write_checkpoint`."""
        checkpoint = {
            "model_state_dict": self.model.state_dict(),
            "optimizer_state_dict": self.model.optimizers_state_dict(),
            "optimizers": self._optimizer_kinds(),
            "epoch": len(self.epoch),
            "rounds": self._rounds,
            "mask_scope": self._settings.mask_scope,
            "prune_mask": [None if entry is None else torch.tensor(entry) for entry in self._mask],
            "mask_changed": self._mask_changed,
            "withheld": self._withholding.differences if self._withholding else [],
        }
        write_checkpoint(Path(model_path), checkpoint, keep_previous)

    def saved_epoch(self, model_path: str) -> int:
        """How many epochs the model saved there last had been trained for."""
        return newest_epoch(Path(model_path))

    def load_model(self, model_path: str, epoch: int | None = None, **_: Any) -> int:
        """Reads what :meth:`save_model` wrote, see :func:`read_checkpoint`.

        Returns:
            The number of epochs the model had been trained for.

        Raises:
            ValueError: the file is damaged, or not one of this model and strategy; nothing was changed then.
        """
        checkpoint = read_checkpoint(Path(model_path), self.exe_device, epoch)
        saved = {name: tuple(value.shape) for name, value in checkpoint["model_state_dict"].items()}
        own = {name: tuple(value.shape) for name, value in self.model.state_dict().items()}
        shapes = [None if entry is None else tuple(entry.shape) for entry in checkpoint["prune_mask"]]
        if saved != own or shapes != [None if entry is None else entry.shape for entry in self._mask]:
            raise ValueError(f"model_path={model_path!r} is not allowed: it holds another model or its masks")
        if checkpoint["optimizers"] != self._optimizer_kinds():
            raise ValueError(
                f"model_path={model_path!r} is not allowed: the optimisers and their groups were "
                f"{checkpoint['optimizers']}, here they are {self._optimizer_kinds()}"
            )
        if (checkpoint["mask_scope"], self._settings.mask_scope) == ("local", "global"):
            raise ValueError(
                f"model_path={model_path!r} is not allowed with mask_scope='global': every party has a mask "
                "of its own there (mask_scope='local')"
            )
        self.model.load_state_dict(checkpoint["model_state_dict"])
        self.model.load_optimizers_state_dict(checkpoint["optimizer_state_dict"])
        if self._withholding:
            kept = checkpoint["withheld"] or [torch.zeros_like(old) for old in self._withholding.differences]
            self._withholding.differences = kept
        self.epoch = list(range(checkpoint["epoch"]))
        self._rounds = checkpoint["rounds"]
        self._use_mask(
            [None if entry is None else entry.numpy(force=True) for entry in checkpoint["prune_mask"]]
        )
        self._mask_changed = checkpoint["mask_changed"]
        return checkpoint["epoch"]

    def export_sparse(self, path: str) -> None:
        """Writes the living weights, see :func:`~secretflow.ml.nn.fl.sparse_model.export_sparse`."""
        export_sparse(self.model.state_dict(), path)

    def _optimizer_kinds(self) -> List[Tuple[str, List[int]]]:
        """Of each optimiser its name, and how many parameters each of its groups has."""
        return [
            (type(optimizer).__name__, [len(group["params"]) for group in optimizer.param_groups])
            for optimizer in self.model._optimizers
        ]

    def _train(
        self,
        weights: List[np.ndarray] | None,
        cur_steps: int,
        train_steps: int,
        prune: Callable[[], None] | None = None,
        refresh_data: bool = False,
        random_seed: int | None = None,
        is_last_round: bool = False,
        **_: Any,
    ) -> int:
        started = time.perf_counter()
        self.model.train()
        if refresh_data:
            if random_seed is not None:
                # Each epoch by itself, so that a run that was stopped and loaded goes on as it would have.
                torch.manual_seed(random_seed + _SEED_STRIDE * len(self.epoch))
            self._reset_data_iter()
        if weights is not None:
            self.set_weights(weights)
        if self._withholding:
            self._withholding.begin(self._uploaded_parameters())
            self._zero_pruned()
        try:
            samples = self._take_steps(cur_steps, train_steps, is_last_round)
            self._seconds += time.perf_counter() - started
            if prune is not None:
                prune()
        except BaseException:
            if self._withholding:
                self._withholding.give_up(self._uploaded_parameters())
            raise
        self._rounds += 1
        return samples

    def _take_steps(self, cur_steps: int, train_steps: int, is_last_round: bool) -> int:
        samples = 0
        folder = self._gradient_capture and self._gradient_capture.folder(
            self._party, self._rounds, is_last=is_last_round, mask_changed=self._mask_changed
        )
        self._mask_changed = False
        for step in range(train_steps):
            x, y, sample_weight = self.next_batch()
            samples += x.shape[0]
            before = self._snapshot() if folder else {}
            loss = self.model.training_step((x, y), cur_steps + step, sample_weight=sample_weight)
            if self.model.automatic_optimization:
                self.model.backward_step(loss)
            self._loss = None if loss is None else loss.detach()
            if folder:
                self._capture(folder, x, y, before)
                folder = None
        return samples

    def _prune_if_due(self, epoch: float, rate: float) -> None:
        if self._settings.step_due(epoch, rate):
            self._use_mask(prune_model(self.model, self._mask, self._settings, epoch))
            self._mask_changed = True

    def _averaged(self) -> Dict[str, torch.Tensor]:
        """What is averaged, sharing memory with the model."""
        state = self.model.state_dict()
        # Upstream pairs weights without batch normalisation with the names of all arrays.
        return {name: state[name] for name in self.model.get_weights_not_bn()} if self.skip_bn else state

    def _live_arrays(self) -> List[np.ndarray]:
        """What is averaged, on the CPU sharing memory with the model."""
        return [value.numpy(force=True) for value in self._averaged().values()]

    def _uploaded_parameters(self) -> List[torch.Tensor]:
        """What is trained and averaged; running statistics of batch normalisation are not trained."""
        names = self._averaged()
        return [p.data for name, p in self.model.named_parameters() if name in names and p.requires_grad]

    def _living(self, parameters: Sequence[torch.Tensor]) -> List[torch.Tensor]:
        """Of each parameter which elements the own mask keeps."""
        factors = {w.data_ptr(): factor for w, factor in zip(self._prunable, self._factors, strict=True)}
        return [factors.get(p.data_ptr(), torch.ones_like(p)) != 0 for p in parameters]

    def _upload(self, dp_strategy: Any, live: List[np.ndarray] | None = None) -> List[np.ndarray]:
        """The weights to upload.

        Args:
            dp_strategy: adds noise.
            live: from :meth:`_live_arrays`, for a caller that uploads them before they change; None copies.
        """
        if self._withholding:
            parameters = self._uploaded_parameters()
            self._withholding.end(parameters, self._living(parameters))
        if dp_strategy is not None and dp_strategy.model_gdp is not None:
            # The aggregator takes no number that the own mask has pruned, so noise stays where weights live.
            return dp_strategy.model_gdp(self.get_weights(return_numpy=True))
        return self.get_weights(return_numpy=True) if live is None else live

    def _use_mask(self, mask: Mask) -> None:
        if all(entry is None for entry in mask):
            raise ValueError("model has nothing to prune: a linear, convolution or embedding layer is needed")
        pairs = [
            (weight, entry_as_tensor(entry, weight)) for _, weight, entry in masked_weights(self.model, mask)
        ]
        self._mask = mask
        self._prunable = [weight for weight, _ in pairs]
        self._factors = [factor for _, factor in pairs]
        self._zero_pruned()

    def _zero_pruned(self) -> None:
        with torch.no_grad():
            torch._foreach_mul_(self._prunable, self._factors)

    def _snapshot(self) -> Dict[str, torch.Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def _capture(
        self, folder: str, x: torch.Tensor, y: torch.Tensor, before: Dict[str, torch.Tensor]
    ) -> None:
        write_capture(
            folder,
            x=x.detach().cpu(),
            y=y.detach().cpu(),
            weights=before,
            mask={name: torch.tensor(entry) for name, _, entry in masked_weights(self.model, self._mask)},
            gradients=[
                # A frozen parameter has no gradient.
                (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
                .detach()
                .cpu()
                .clone()
                for parameter in self.model.parameters()
            ],
            party=self._party,
            round_number=self._rounds,
            living_rate=living_rate(self._mask),
            optimizer=optimizer_settings(self.model._optimizers[0]),
        )


@register_strategy(strategy_name="fed_avg_w_prune", backend="torch")
class PYUFedAvgWPrune(FedAvgWPrune):
    """The strategy as ``FLModel`` finds it."""
