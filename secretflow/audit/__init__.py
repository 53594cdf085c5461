"""``python -m secretflow.audit``: what a training leaks, for any net and rows.

The same from Python is :func:`secretflow.ml.nn.fl.audit.audit`.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
