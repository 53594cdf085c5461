"""A wait for what cannot come is an error."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from torch import nn

import secretflow as sf
from secretflow.data.core import partition
from secretflow.data.horizontal import HDataFrame, read_csv
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_program_that_ends_with_an_error_and_tables_at_its_parties_tells_of_that_error_alone(
    tmp_path,
) -> None:
    (tmp_path / "alice.csv").write_text("a,label\n1,0\n")
    code = """
import secretflow as sf
from secretflow.data.horizontal import read_csv
sf.init(["alice"], address="local", num_cpus=1, log_to_driver=False, logging_level="warning")
table = read_csv({sf.PYU("alice"): "alice.csv"})
raise KeyError("mine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1
    assert "KeyError: 'mine'" in done.stderr and "os.fork" not in done.stderr


def test_an_error_in_what_reads_a_partys_rows_is_told_and_the_party_goes_on(
    ray_devices: SimpleNamespace, tmp_path
) -> None:
    def prepared(path: str) -> pd.DataFrame:
        return pd.read_csv(path).rename(columns={"a": "b"})[["a"]]

    (tmp_path / "alice.csv").write_text("a\n1\n")
    alice = ray_devices.alice
    with pytest.raises(FileNotFoundError, match=r"alic.csv"):
        read_csv({alice: f"{tmp_path}/alic.csv"})
    with pytest.raises(KeyError, match=r"None of .*'a'.* are in the"):
        HDataFrame({alice: partition(prepared, alice, path=f"{tmp_path}/alice.csv")}).shape  # noqa: B018
    assert read_csv({alice: f"{tmp_path}/alice.csv"}).shape == (1, 1)
