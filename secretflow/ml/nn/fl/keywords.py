"""Keywords that nobody has: Python would tell, but upstream's ``**kwargs`` swallow them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from secretflow.errors import WrongTypeError
from secretflow.ml.nn.fl.checks import PRUNE_STRATEGY
from secretflow.ml.nn.fl.pruning import PruneSettings

_UPSTREAM_KEYWORDS = ("dp_strategy", "num_gpus", "simulation")
_OF_STRATEGIES: dict[str, tuple[str, ...]] = {
    PRUNE_STRATEGY: (),
    "fed_avg_w": ("server_agg_method",),
    "fed_avg_g": ("server_agg_method",),
    "fed_avg_u": ("server_agg_method",),
    "fed_prox": ("server_agg_method", "mu"),
    "fed_scr": ("server_agg_method", "threshold"),
    "fed_stc": ("server_agg_method", "sparsity"),
    "scaffold": ("server_agg_method",),
}
_OWN_KEYWORDS = ("gradient_capture", "local_objective", "mu", "wp_strategy", *PruneSettings.names())


def check_keywords(keywords: Mapping[str, Any], strategy: str) -> None:
    """Refuses a keyword of ``FLModel`` that no argument of the strategy has.

    Args:
        keywords: those that are left when the fork's own have been taken out.
        strategy: of this package or upstream's; what one of the user's own takes is not known.

    Raises:
        TypeError: there is one; the message suggests what may have been meant.
    """
    if strategy not in _OF_STRATEGIES:
        return
    known = [*_UPSTREAM_KEYWORDS, *_OF_STRATEGIES[strategy]]
    _refuse_unknown("FLModel", f" with {strategy!r}", keywords, known, [*known, *_OWN_KEYWORDS])


def check_fit_keywords(args: Sequence[Any], keywords: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuses a keyword of ``fit`` that it does not have, and a call without features or labels.

    Args:
        args: of the call.
        keywords: likewise.
        known: those that there are, in order.

    Raises:
        TypeError: one is unknown, with what may have been meant, or missing.
    """
    _refuse_unknown("fit", "", keywords, known, known)
    for name in ("x", "y")[len(args) :]:
        if name not in keywords:
            raise WrongTypeError(f"{name} must be given, got none: fit(x, y) takes features and labels")


def _refuse_unknown(
    what: str, where: str, keywords: Mapping[str, Any], known: Collection[str], near: Collection[str]
) -> None:
    for name, value in keywords.items():
        if name not in known:
            close = get_close_matches(name, near, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            shown = value if isinstance(value, (str, int, float, type(None))) else type(value).__name__
            raise WrongTypeError(f"{what} has no argument {name}{where}, got {shown!r}{meant}")
