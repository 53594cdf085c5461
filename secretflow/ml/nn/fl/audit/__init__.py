"""The victim's side of the leakage audit, made of what training itself runs, and the scores.

``views`` makes an attacker's :class:`~secretflow.ml.nn.fl.attacks.Observation` from what parties compute,
``captured`` from what a training captured (:func:`load_capture`, :func:`observe_capture`); ``defences`` are
what is done to weights or uploads first; ``padded`` is the upload of the secure aggregation; ``scores``
compares with the truth, which no attack sees. Needs torch and numpy; the scores need torchmetrics and scipy,
``padded`` and updates that are rounded need this project's aggregator.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from secretflow.ml.nn.fl.audit.captured import observe_capture
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe
from secretflow.ml.nn.fl.worker.capture_files import Capture, load_capture

__all__ = ["Capture", "Knowledge", "PartyStep", "load_capture", "observe", "observe_capture"]
