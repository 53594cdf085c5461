"""The leakage audit: what an attacker gets back of a training's rows.

:func:`audit` (on the command line ``python -m secretflow.audit``) does it all for a net and rows of one's
own, and :class:`~.callback.LeakageAudit` while a training runs. Its parts are of use by themselves:
``views`` makes an attacker's :class:`~secretflow.ml.nn.fl.attacks.Observation` from what parties compute,
``captured`` from what a training captured (:func:`load_capture`, :func:`observe_capture`); ``defences`` are
what is done to weights or uploads first; ``padded`` is the upload of the secure aggregation; ``scores``
compares with the truth, which no attack sees. ``padded`` and updates that are rounded need this project's
aggregator, the callback SecretFlow, and all else torch and what upstream brings.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from secretflow.ml.nn.fl.audit.captured import observe_capture
from secretflow.ml.nn.fl.audit.files import read_arrays, read_csv, read_images
from secretflow.ml.nn.fl.audit.report import AuditReport
from secretflow.ml.nn.fl.audit.rows import Column, Rows
from secretflow.ml.nn.fl.audit.run import audit
from secretflow.ml.nn.fl.audit.settings import AuditSettings
from secretflow.ml.nn.fl.audit.views import Knowledge, PartyStep, observe
from secretflow.ml.nn.fl.worker.capture_files import Capture, load_capture

__all__ = [
    "AuditReport",
    "AuditSettings",
    "Capture",
    "Column",
    "Knowledge",
    "PartyStep",
    "Rows",
    "audit",
    "load_capture",
    "observe",
    "observe_capture",
    "read_arrays",
    "read_csv",
    "read_images",
]
