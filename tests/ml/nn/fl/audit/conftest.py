"""The party that attacks are tried on is also the one whose views are looked at."""

from tests.ml.nn.fl.attacks.conftest import make_party, one_thread

__all__ = ["make_party", "one_thread"]
