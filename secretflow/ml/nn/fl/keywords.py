"""Keywords that nobody has: Python would tell, but upstream's ``**kwargs`` swallow them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from secretflow.errors import WrongTypeError
from secretflow.ml.nn.fl.checks import PRUNE_STRATEGY
from secretflow.ml.nn.fl.pruning import PruneSettings

_UPSTREAM_KEYWORDS = ("dp_strategy", "num_gpus", "simulation")
_UPSTREAM_STRATEGIES = ("fed_avg_w", "fed_avg_g", "fed_avg_u", "fed_prox", "fed_scr", "fed_stc", "scaffold")
_OF_UPSTREAM_STRATEGIES = ("server_agg_method", "mu", "threshold", "sparsity")
_LOAD_KEYWORDS = ("saved_model", "force_all_participate")
_OWN_KEYWORDS = (
    "accept_degenerate_layers",
    "gradient_capture",
    "local_objective",
    "mu",
    "wp_strategy",
    *PruneSettings.names(),
)


def check_keywords(keywords: Mapping[str, Any], strategy: str) -> None:
    """Refuses a keyword of ``FLModel`` that no strategy has.

    Users of upstream give its strategies each other's keywords, as its own tests do.

    Args:
        keywords: those that are left when the fork's own have been taken out.
        strategy: of this package or upstream's; what one of the user's own takes is not known.

    Raises:
        TypeError: there is one; the message suggests what may have been meant.
    """
    if strategy in _UPSTREAM_STRATEGIES:
        known = [*_UPSTREAM_KEYWORDS, *_OF_UPSTREAM_STRATEGIES]
    elif strategy == PRUNE_STRATEGY:
        known = [*_UPSTREAM_KEYWORDS]
    else:
        return
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


def check_load_keywords(keywords: Mapping[str, Any]) -> None:
    """Refuses a keyword of ``load_model`` that no worker of ``fed_avg_w_prune`` has.

    Args:
        keywords: those that are upstream's, or nobody's.

    Raises:
        TypeError: there is one; the message suggests what may have been meant.
    """
    near = ("model_path", "is_test", *_LOAD_KEYWORDS)
    _refuse_unknown("load_model", f" with {PRUNE_STRATEGY!r}", keywords, _LOAD_KEYWORDS, near)


def _refuse_unknown(
    what: str, where: str, keywords: Mapping[str, Any], known: Collection[str], near: Collection[str]
) -> None:
    for name, value in keywords.items():
        if name not in known:
            close = get_close_matches(name, near, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            shown = value if isinstance(value, (str, int, float, type(None))) else type(value).__name__
            raise WrongTypeError(f"{what} has no argument {name}{where}, got {shown!r}{meant}")
