"""Who may import whom: training knows no attack, an attack knows nothing but what it is given."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import secretflow

ROOT = Path(secretflow.__file__).parent
FL = "secretflow.ml.nn.fl"
ATTACKS, AUDIT, COMMAND = f"{FL}.attacks", f"{FL}.audit", "secretflow.audit"


def imports() -> Iterator[tuple[str, str]]:
    """Each module of the fork with each thing that a statement of it imports, wherever that stands."""
    for path in ROOT.rglob("*.py"):
        parts = ["secretflow", *path.relative_to(ROOT).with_suffix("").parts]
        package = ".".join(parts[:-1])
        module = package if parts[-1] == "__init__" else ".".join(parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                source = resolve_name("." * node.level + (node.module or ""), package)
                yield from ((module, f"{source}.{name.name}") for name in node.names)
            elif isinstance(node, ast.Import):
                yield from ((module, name.name) for name in node.names)


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def test_an_attack_imports_nothing_of_the_project_but_attacks_and_checks_of_arguments() -> None:
    of_attacks = [(module, what) for module, what in imports() if inside(module, ATTACKS)]
    assert any(inside(what, ATTACKS) for _, what in of_attacks)
    allowed = (ATTACKS, "secretflow._validate")
    foreign = [pair for pair in of_attacks if not any(inside(pair[1], room) for room in allowed)]
    assert [pair for pair in foreign if inside(pair[1], "secretflow")] == []


@pytest.mark.parametrize("room", [ATTACKS, AUDIT])
def test_nothing_that_trains_or_aggregates_imports_the_audit(room: str) -> None:
    foreign = [(module, what) for module, what in imports() if inside(what, room)]
    rooms = (ATTACKS, AUDIT, COMMAND)
    assert [pair for pair in foreign if not any(inside(pair[0], own) for own in rooms)] == []


def test_an_attack_needs_no_secretflow_behind_it() -> None:
    code = f"import sys, {ATTACKS}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"ray", "pandas", "secretflow.device", "secretflow.security", AUDIT}
    assert f"{FL}.worker.capture_files" not in loaded


def test_names_of_captures_are_still_found_where_they_were() -> None:
    from secretflow.ml.nn.fl import GradientCapture, attacks
    from secretflow.ml.nn.fl.worker import capture_files

    assert attacks.GradientCapture is GradientCapture
    assert attacks.load_capture is capture_files.load_capture
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = attacks.no_such_name
