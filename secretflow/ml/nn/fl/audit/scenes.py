"""What attackers are shown: uploads and averages of the audited net, made by training's own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from secretflow import _validate
from secretflow.errors import ArgumentError
from secretflow.ml.nn.fl.attacks import Observation
from secretflow.ml.nn.fl.attacks.public import Distort
from secretflow.ml.nn.fl.audit.captured import observe_capture
from secretflow.ml.nn.fl.audit.defences import magnitude_mask, round_stochastically
from secretflow.ml.nn.fl.audit.rows import Rows
from secretflow.ml.nn.fl.audit.settings import AuditSettings
from secretflow.ml.nn.fl.audit.subject import Subject
from secretflow.ml.nn.fl.audit.views import (
    Knowledge,
    PartyStep,
    observe,
    plain_aggregate,
    weight_update,
)
from secretflow.ml.nn.fl.worker.capture_files import Capture


@dataclass(frozen=True)
class Scene:
    """One view, on as many batches or averages as fit into the attacked rows.

    Attributes:
        name: tells it from others of an audit.
        view: "upload", "average" or "capture".
        parties: behind each observation.
        batch_size: rows of each party.
        density: of the weights that can be pruned, in (0, 1].
        bits: of a rounded coordinate; None if none is.
        local_steps: before the upload.
        observations: what the attacker has, one for each batch or average.
        numbers: of the rows in each of them among the candidates, int64 of shape (observations, rows).
        distort: what the attacker does to a gradient of its own before it compares; None is nothing.
    """

    name: str
    view: str
    parties: int
    batch_size: int
    density: float
    bits: int | None
    local_steps: int
    observations: tuple[Observation, ...]
    numbers: torch.Tensor
    distort: Distort | None = None

    @property
    def rows_together(self) -> int:
        """How many rows are in one observation."""
        return self.numbers.shape[1]


def scenes_of(subject: Subject, candidates: Rows, attacked: int, settings: AuditSettings) -> Iterator[Scene]:
    """The views that the settings ask for, one party's upload first.

    Args:
        subject: the net.
        candidates: private rows, of which the first ones are attacked.
        attacked: how many; more are taken for an average that needs more.
        settings: which views.

    Yields:
        A scene for one party's upload, and one for each number of parties; those for which there are too few
        rows are left out.
    """
    mask = subject.mask
    if not mask and settings.density < 1:
        mask = magnitude_mask(subject.build, subject.weights, 1 - settings.density)
    for parties in (1, *settings.parties):
        together = parties * settings.batch_size
        if together > len(candidates) // 2:
            continue
        groups = max(1, attacked // together)
        numbers = torch.arange(groups * together).view(groups, together)
        yield Scene(
            name="upload" if parties == 1 else f"average of {parties}",
            view="upload" if parties == 1 else "average",
            parties=parties,
            batch_size=settings.batch_size,
            density=density_of(mask),
            bits=settings.bits,
            local_steps=settings.local_steps,
            observations=tuple(
                _observed(subject, candidates, own, mask, parties, settings) for own in numbers
            ),
            numbers=numbers,
            distort=_rounding(settings.bits) if together == 1 else None,
        )


def density_of(mask: dict[str, torch.Tensor]) -> float:
    """Part of the prunable weights that live; 1 without a mask."""
    size = sum(entry.numel() for entry in mask.values())
    return sum(float(entry.sum()) for entry in mask.values()) / size if size else 1.0


def _observed(
    subject: Subject,
    rows: Rows,
    numbers: torch.Tensor,
    mask: dict[str, torch.Tensor],
    parties: int,
    settings: AuditSettings,
) -> Observation:
    steps, rate = settings.local_steps, settings.learning_rate
    members = [
        PartyStep(subject.build, subject.weights, rows.x[own], rows.y[own], mask, subject.evaluating)
        for own in numbers.view(parties, -1)
    ]
    try:
        uploads = [weight_update(party, steps, rate) for party in members]
    except (ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"batch_size must be one that the net trains on, got {settings.batch_size}: {error}"
        ) from error
    if settings.bits is not None:
        seed = settings.seed + int(numbers[0])
        uploads = [round_stochastically(upload, settings.bits, seed + k) for k, upload in enumerate(uploads)]
    seen = plain_aggregate(uploads)
    found = observe(
        members[0],
        seen,
        Knowledge.MASK_KNOWN,
        classes=len(rows.labels),
        parties=parties,
        local_steps=steps,
        learning_rate=rate if steps > 1 else None,
    )
    return replace(found, value_range=rows.bounds)


def _rounding(bits: int | None) -> Distort | None:
    if bits is None:
        return None
    levels = bits
    return lambda arrays: round_stochastically(arrays, levels)


def captured_scenes(subject: Subject, captures: Sequence[Capture], rows: Rows) -> Iterator[Scene]:
    """What a training captured, each step by itself.

    Args:
        subject: the net that was trained; its weights do not count.
        captures: whose rows are the first ones of ``rows``, in their order.
        rows: candidates.

    Yields:
        A scene for each capture.

    Raises:
        ValueError: a capture is not one of the net, or its gradient is not explained by its rows.
    """
    first = 0
    for capture in captures:
        _validate.instance("capture.x", capture.x, torch.Tensor, "of one input")
        count = len(capture.x)
        observation = observe_capture(capture, subject.build, classes=len(rows.labels))
        yield Scene(
            name=f"round {capture.round_number} of {capture.party}",
            view="capture",
            parties=1,
            batch_size=count,
            density=capture.density,
            bits=None,
            local_steps=1,
            observations=(replace(observation, value_range=rows.bounds),),
            numbers=torch.arange(first, first + count)[None],
        )
        first += count
