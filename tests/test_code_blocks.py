"""Every Python block of README and docs runs as it is printed; those of a page one after the other.

A page in Chinese has the blocks of the English one, which run.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples import make_data

ROOT = Path(__file__).resolve().parents[1]
READMES = sorted(ROOT.glob("README*.md"))
CHINESE = sorted((ROOT / "docs").glob("*.zh-CN.md"))
GUIDES = sorted(set((ROOT / "docs").glob("*.md")) - set(CHINESE))
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != "make_data.py")
LAST_WORDS = {"hospitals": "binaryauroc=0.9", "mnist": "multiclassaccuracy=0.9"}

# What the guides take for granted: parties, data and a model. One process does the work of all parties.
BEFORE_A_GUIDE = """
import numpy as np
import pandas as pd
import secretflow as sf
from secretflow.data.ndarray import FedNdarray, PartitionWay
from secretflow.ml.nn import FLModel
from secretflow.ml.nn.callbacks import Callback
from secretflow.ml.nn.core.torch import TorchModel, metric_wrapper, optim_wrapper
from secretflow.security.aggregation import SecurePruneAggregator
from torch import nn, optim
from torchmetrics.classification import MulticlassAccuracy

sf.init(["alice", "bob", "charlie"], debug_mode=True)
alice, bob, charlie = sf.PYU("alice"), sf.PYU("bob"), sf.PYU("charlie")
x = FedNdarray({p: p(np.random.rand)(64, 8) for p in (alice, bob)}, PartitionWay.HORIZONTAL)
y = FedNdarray({p: p(np.random.randint)(0, 4, 64) for p in (alice, bob)}, PartitionWay.HORIZONTAL)
def Net():
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
net = Net()
accuracy = metric_wrapper(MulticlassAccuracy, num_classes=4)
model_def = TorchModel(Net, nn.CrossEntropyLoss, optim_wrapper(optim.SGD, lr=0.1), [accuracy])
for seed, party in enumerate(["alice", "bob"]):
    draw = np.random.default_rng(seed)
    held = draw.random((64, 8)), draw.integers(0, 4, 64)
    np.savez(f"{party}.npz", x=held[0], y=held[1])
    frame = pd.DataFrame(held[0], columns=list("abcdefgh")).assign(label=held[1])
    frame.assign(city=draw.choice(["Lyon", "Porto", "Turin"], 64)).to_csv(f"{party}.csv", index=False)
"""


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(program: str, folder: Path) -> str:
    (folder / "program.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _environment() -> dict[str, str]:
    """Without the checkout on the path, where a reader has none; its package is installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_the_readmes_have_one_example_and_it_is_the_same() -> None:
    english, chinese = map(blocks, READMES)
    assert len(english) == 1 and english == chinese


@pytest.mark.slow
def test_the_example_of_the_readme_trains_in_an_empty_folder(tmp_path: Path) -> None:
    accuracy, density = map(float, run(blocks(READMES[0])[0], tmp_path).split()[-2:])
    assert accuracy > 0.9 and density < 0.5
    assert (tmp_path / "digits.png").stat().st_size > 10_000


@pytest.mark.parametrize("page", [page for page in GUIDES if blocks(page)], ids=lambda page: page.name)
def test_the_blocks_of_a_guide_run_one_after_the_other(page: Path, tmp_path: Path) -> None:
    run(BEFORE_A_GUIDE + "\n".join(blocks(page)), tmp_path)


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
def test_a_page_in_chinese_has_the_blocks_of_the_english_one(page: Path) -> None:
    """But for comments."""
    english = page.with_name(page.name.replace(".zh-CN", ""))
    chinese, expected = ([ast.dump(ast.parse(block)) for block in blocks(one)] for one in (page, english))
    assert chinese == expected


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_from_any_folder(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, example], cwd=tmp_path, env=_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert LAST_WORDS[example.stem] in done.stdout
    assert (tmp_path / f"{example.stem}.png").stat().st_size > 10_000


def test_the_data_of_the_examples_are_what_their_maker_makes(tmp_path: Path) -> None:
    shipped = ROOT / "examples"
    make_data.hospitals(tmp_path)
    for file in (shipped / "hospitals").glob("*.csv"):
        assert file.read_text(encoding="utf-8") == (tmp_path / file.name).read_text(encoding="utf-8")
    make_data.mnist(tmp_path / "mnist.npz")
    ours, made = (np.load(folder / "mnist.npz") for folder in (shipped, tmp_path))
    assert sorted(ours) == sorted(made) and all(np.array_equal(ours[name], made[name]) for name in made)
