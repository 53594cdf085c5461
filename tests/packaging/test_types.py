"""What mypy sees of the overlay in a user's project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import Environment

pytestmark = [pytest.mark.install, pytest.mark.slow]

SETTINGS = """
[mypy]
strict = true

[mypy-secretflow.*]
ignore_missing_imports = true

# Saves the test the time to read them.
[mypy-jax.*,numpy.*,ray.*,torch.*]
follow_imports = skip
"""

JOB = """
import secretflow as sf
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.utils import TorchModel
from secretflow.security.aggregation import SecurePruneAggregator

sf.init(["alice", "bob", "carol"], address="local")
alice, bob, carol = sf.PYU("alice"), sf.PYU("bob"), sf.PYU("carol")
aggregator = SecurePruneAggregator(carol, [alice, bob])
model = FLModel(server=carol, device_list=[alice, bob], aggregator=aggregator, model=TorchModel())
reveal_type(sf.init)
reveal_type(aggregator)
reveal_type(model)
history = model.fit({alice: "a.csv"}, "label", epochs=2, batch_size={alice: 8}, verbose=0)
reveal_type(history)
history.global_history["density"]
model.fit({alice: "a.csv"}, "label", epochs="2")
SecurePruneAggregator(carol, [alice, bob], min_contributors="two")
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("installation", ["with_wheel", "with_editable"])
def test_mypy_sees_the_public_classes_as_what_they_are(
    installation: str, request: pytest.FixtureRequest, cache: Path, tmp_path: Path
) -> None:
    environment: Environment = request.getfixturevalue(installation)
    (tmp_path / "job.py").write_text(JOB, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(SETTINGS, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--python-executable", str(environment.python)),
            *("--cache-dir", str(cache), "job.py"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    revealed = [line.partition('Revealed type is "')[2].rstrip('"') for line in done.stdout.splitlines()]
    init, aggregator, model, history, *_ = revealed
    assert init.startswith("def (parties: ")
    assert aggregator == "secretflow.security.aggregation.secure_prune_aggregator.SecurePruneAggregator"
    assert model == "secretflow.ml.nn.fl.fl_model.FLModel"
    assert history == "secretflow.ml.nn.fl.history.History"
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [error.partition("error: ")[2].partition(" has ")[0] for error in errors] == [
        'Argument "epochs" to "fit" of "FLModel"',
        'Argument "min_contributors" to "SecurePruneAggregator"',
    ]
