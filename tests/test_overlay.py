"""The fork lies over upstream: what it has is the fork's, the rest is upstream's."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import secretflow
from secretflow._overlay import check_python, upstream

IN_TREE = Path(secretflow.__file__).parent


def _modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_secretflow_loads_no_component_and_no_heavy_library() -> None:
    loaded = _modules_after("import secretflow")
    assert not loaded & {"torch", "ray", "jax", "pandas", "secretflow.component", "secretflow.device"}


def test_public_names_are_upstreams() -> None:
    from secretflow.device import PYU, reveal

    assert secretflow.PYU is PYU
    assert secretflow.reveal is reveal
    assert set(secretflow.__all__) <= set(dir(secretflow))
    assert {"init", "shutdown", "data", "ml", "security"} <= set(secretflow.__all__)


def test_a_submodule_of_upstreams_is_an_attribute_as_it_is_there() -> None:
    import secretflow.stats

    assert not Path(secretflow.stats.__file__).is_relative_to(IN_TREE)


@pytest.mark.parametrize("module", ["device.driver", "device.proxy", "device.kernels", "device.device.spu"])
def test_a_module_of_upstreams_can_be_the_first_that_is_imported(module: str) -> None:
    assert f"secretflow.{module}" in _modules_after(f"import secretflow.{module}")


def test_how_devices_exchange_objects_is_known_after_init_alone() -> None:
    code = """
import secretflow
from secretflow.device.device.pyu import PYU
from secretflow.device.driver import reveal

secretflow.init(["alice", "bob"], debug_mode=True)
print(reveal(PYU("alice")(lambda: 3)().to(PYU("bob"))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = secretflow.nonsense


def test_a_hidden_module_of_upstreams_is_loaded_under_a_private_name() -> None:
    hidden = upstream("secretflow.ml.nn.fl.fl_model")
    assert not Path(hidden.__file__).is_relative_to(IN_TREE)
    assert hidden.__name__ != "secretflow.ml.nn.fl.fl_model"


def test_a_class_of_a_hidden_module_travels_by_reference() -> None:
    hidden = upstream("secretflow.ml.nn.fl.fl_model").FLModel
    data = pickle.dumps(hidden)
    code = f"import pickle; print(pickle.loads({data!r}).__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hidden.__module__


def test_a_module_that_upstream_does_not_have_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        upstream("secretflow.ml.nn.fl.pruning")


def test_a_python_that_upstream_has_no_compiled_parts_for_is_refused_in_one_sentence() -> None:
    for version in ((3, 10), (3, 11)):
        check_python(version)
    with pytest.raises(ImportError, match=r"needs Python 3\.10 or 3\.11, .*, got 3\.12: make an environment"):
        check_python((3, 12))
