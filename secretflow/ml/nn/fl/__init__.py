from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from secretflow.ml.nn.fl.worker.capture import CaptureRounds, GradientCapture

__all__ = ["CaptureRounds", "GradientCapture"]
