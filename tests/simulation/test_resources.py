"""A wait for what cannot come is an error."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from torch import nn

import secretflow as sf
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.core.torch import TorchModel
from secretflow.security.aggregation import SecurePruneAggregator


@pytest.mark.parametrize("strategy", ["fed_avg_w_prune", "fed_avg_w"])
def test_gpus_that_ray_does_not_have_are_refused(ray_devices: SimpleNamespace, strategy: str) -> None:
    parties = [ray_devices.alice, ray_devices.bob]
    with pytest.raises(
        ValueError, match=r"^num_gpus must be at most .*, for Ray has .* for 2 parties, got 64"
    ):
        FLModel(
            server=ray_devices.carol,
            device_list=parties,
            model=TorchModel(model_fn=lambda: nn.Linear(2, 2), loss_fn=nn.CrossEntropyLoss),
            aggregator=SecurePruneAggregator(ray_devices.carol, parties),
            strategy=strategy,
            backend="torch",
            num_gpus=64,
        )


def test_work_for_a_party_that_was_not_started_is_refused(ray_devices: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"one of the parties that sf.init started, .*'alice'.*, got 'zoe'"):
        sf.PYU("zoe")(lambda: 1)()


def test_work_before_init_is_refused() -> None:
    code = "import secretflow as sf; sf.PYU('alice')(lambda: 1)()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "secretflow.errors.StateError: sf.init must be called before work is given"
    )


def test_a_program_that_forgets_shutdown_ends_without_a_word(tmp_path) -> None:
    code = """
import secretflow as sf
sf.init(["alice"], address="local", num_cpus=1, logging_level="warning")
held = sf.PYU("alice")(lambda: 1)()
print(sf.reveal(held))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "Traceback" not in done.stderr and "os.fork" not in done.stderr
