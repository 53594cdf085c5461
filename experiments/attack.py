"""The attack of the main job: a gradient of federated training in, an image out, before and after pruning."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import optim
from tqdm.auto import tqdm

from experiments.data import CLASSES, Images, share_out
from experiments.dgl_utils import IMAGE_SHAPE, LeNet, attacked_net
from experiments.report import CAPTURE_DIR, DENSE_CAPTURE_DIR
from experiments.settings import Settings
from experiments.training import Parties, torch_model
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.fl import GradientCapture
from secretflow.ml.nn.fl.attacks import DLGSettings, Observation, Reconstruction, dlg_attack
from secretflow.ml.nn.fl.audit import Capture, load_capture
from secretflow.ml.nn.fl.audit.scores import SUCCESS_MSE, mean_squared_error, peak_signal_to_noise, rank
from secretflow.ml.nn.fl.audit.views import Weights, apply_mask
from secretflow.security.aggregation import SecurePruneAggregator

LEARNING_RATE = 1e-4
"""Of the captured run: so small that the gradient after pruning differs by the pruning, not by the training.
A net that has learned the one image by heart has no gradient left to attack."""


@dataclass(frozen=True)
class Case:
    """One attack to make.

    Attributes:
        name: of the case in the report.
        attacker: what the attacker knows, in words.
        seen: the capture whose gradient the attacker has, as far as the party uploads it.
        observation: all that the attacker has.
    """

    name: str
    attacker: str
    seen: Capture
    observation: Observation


def capture_gradients(
    settings: Settings, parties: Parties, images: Images, aggregator: SecurePruneAggregator
) -> None:
    """Runs the pruned strategy on one image and captures alice's gradient, dense and pruned.

    Each party holds a single image, so each batch is that image and an epoch is one round. The pruning
    schedule is the main run's, so after as many epochs it has come to the same density. The dense
    gradient goes to ``sf_output/dense`` and the pruned one, if the run prunes, to ``sf_output``.

    Args:
        settings: of this run.
        parties: who takes part.
        images: alice's image is row ``attack_image``, bob's the last one.
        aggregator: of alice and bob.
    """
    last = settings.epochs if settings.pruned else 0
    rows = [settings.attack_image, len(images.x_train) - 1]
    equal = {parties.alice: 0.5, parties.bob: 0.5}
    x, y = share_out(images.x_train[rows], images.y_train[rows], equal)
    rounds = (0, last) if last else (0,)
    with tempfile.TemporaryDirectory() as folder:
        model = FLModel(
            server=parties.charlie,
            device_list=[parties.alice, parties.bob],
            model=torch_model(attacked_net, optim.SGD, lr=LEARNING_RATE),
            aggregator=aggregator,
            strategy="fed_avg_w_prune",
            backend="torch",
            random_seed=settings.seed,
            prune_end_rate=settings.prune_end_rate,
            prune_percent=settings.prune_percent,
            gradient_capture=GradientCapture(f"{folder}/capture", parties.alice.party, rounds),
        )
        model.fit(x, y, epochs=last + 1, batch_size=1, aggregate_freq=1, verbose=int(settings.verbose))
        written = Path(folder, "capture")
        if last:
            _move_files(written / f"round-{last}", settings.out / CAPTURE_DIR)
            written = written / "round-0"
        _move_files(written, settings.out / DENSE_CAPTURE_DIR)


def _move_files(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in source.iterdir():
        shutil.move(file, target / file.name)


def cases(settings: Settings) -> list[Case]:
    """The attacks on what :func:`capture_gradients` wrote; the undefended control comes first."""
    dense = load_capture(settings.out / DENSE_CAPTURE_DIR)
    found = [Case("before_prune", "control: nothing is pruned", dense, _observe(dense, dense.weights))]
    if settings.pruned:
        pruned = load_capture(settings.out / CAPTURE_DIR)
        found.append(
            Case(
                "after_prune",
                "mask-aware: evaluates the pruned net, matches living coordinates",
                pruned,
                _observe(pruned, pruned.weights, pruned.mask),
            )
        )
        found.append(
            Case(
                "after_prune_mask_oblivious",
                "mask-oblivious: evaluates the unpruned net, matches all coordinates",
                pruned,
                _observe(pruned, dense.weights),
            )
        )
    return found


def _observe(seen: Capture, weights: Weights, mask: Weights | None = None) -> Observation:
    # The party's own gradient is not zero where its mask is; what it uploads is, and no attacker has more.
    names = [name for name, _ in LeNet().named_parameters()]
    uploaded = apply_mask(dict(zip(names, seen.gradients, strict=True)), seen.mask)
    return Observation(IMAGE_SHAPE, CLASSES, tuple(uploaded.values()), LeNet, weights, mask, len(seen.x))


def run_attack(case: Case, settings: Settings) -> Reconstruction:
    """Makes one attack and shows how it goes on."""
    chosen = DLGSettings(settings.attack_iterations, settings.restarts, record_every=1, seed=settings.seed)
    with tqdm(total=100, desc=f"DLG {case.name}", unit="%", disable=not settings.verbose) as bar:
        return dlg_attack([case.observation], chosen, lambda done: update_bar(bar, done))[0]


def update_bar(bar: Any, done: float) -> None:
    """Moves a progress bar of percents to the part of the work that is done, in [0, 1]."""
    bar.update(round(100 * done) - bar.n)


def score(case: Case, result: Reconstruction, candidates: torch.Tensor) -> dict[str, Any]:
    """The rows of the report: how close the reconstruction is to the truth, and whether it names it.

    Args:
        case: the attack.
        result: what came of it.
        candidates: images of shape (candidates, 1, height, width), the true one among them.
    """
    truth = case.seen.x
    error = mean_squared_error(result.images, truth)
    place = rank(result.images, truth, candidates)
    squared_norm = sum(float(gradient.square().sum()) for gradient in case.observation.gradients)
    return {
        "attack": "DLG",
        "attacker": case.attacker,
        "density": case.seen.density,
        "loss": result.loss,
        "loss_relative_to_squared_gradient": result.loss / squared_norm,
        "mse": error,
        "psnr_db": peak_signal_to_noise(result.images, truth),
        "label_right": bool(torch.equal(result.labels, case.seen.y.argmax(dim=-1))),
        "rank": place,
        "candidates": len(candidates),
        "identified": place == 1,
        "got_back": error < SUCCESS_MSE,
        "iteration": result.iteration,
        "restart": result.restart,
        "diverged": result.diverged,
        "seconds": round(result.seconds, 3),
    }
