"""How the fork lies over upstream: the only module that knows where upstream's copy is.

Every package of the fork puts its own directory in front of upstream's in ``__path__``
(:func:`pkgutil.extend_path`), so a module that the fork does not have is upstream's. A module that the
fork does have hides upstream's of the same name; :func:`upstream` gives that hidden one, loaded from its
own file under a private name, so that the fork's module can subclass what it changes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

PYTHON_VERSIONS = ((3, 10), (3, 11))
"""Those that upstream has compiled parts for."""

_HOME = Path(__file__).resolve().parent
_PREFIX = "_upstream_"


class _UpstreamFinder(MetaPathFinder):
    """Finds ``secretflow.x._upstream_y``: upstream's ``secretflow/x/y.py`` under a private name.

    The name is importable, rather than a module object made by hand, because Ray's workers import by name
    whatever class of upstream's is pickled by reference.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, leaf = fullname.rpartition(".")
        if not leaf.startswith(_PREFIX) or package.partition(".")[0] != "secretflow":
            return None
        hidden = [entry for entry in path or () if not _is_in_tree(entry)]
        spec = PathFinder.find_spec(f"{package}.{leaf[len(_PREFIX) :]}", hidden)
        if spec is None or spec.origin is None:
            return None
        return spec_from_file_location(fullname, spec.origin)


def _is_in_tree(entry: str) -> bool:
    resolved = Path(entry).resolve()
    return resolved == _HOME or _HOME in resolved.parents


def search_path(entries: Iterable[str]) -> list[str]:
    """Where the modules of ``secretflow`` are: in this copy of the overlay, then in upstream's package.

    Another copy of the overlay on ``sys.path`` is left out: a checkout that is the current directory lies in
    front of an installed wheel, which it would take for upstream. An editable installation is this very copy
    by another name. Packages below find their folders through their parent's.

    Args:
        entries: the folders of that name on ``sys.path``.
    """
    others = (entry for entry in entries if not Path(entry, Path(__file__).name).is_file())
    return [str(_HOME), *others]


def check_working_directory() -> None:
    """Checks that Ray's workers will run this copy of the overlay, as the driver does.

    Ray puts the driver's working directory in front of a worker's ``sys.path``.

    Raises:
        RuntimeError: the working directory holds another package ``secretflow``.
    """
    there = Path.cwd() / "secretflow"
    if (there / "__init__.py").is_file() and there.resolve() != _HOME:
        raise RuntimeError(
            f"the working directory must hold no other package secretflow than the one in use, {_HOME}, got "
            f"{there}, which Ray's workers would import: start in another directory, or run the program with "
            "python -m to use the package there"
        )


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> None:
    """Checks that there is an upstream for this Python, or its compiled parts would fail one by one.

    Args:
        version: major and minor version.

    Raises:
        ImportError: there is none.
    """
    if version not in PYTHON_VERSIONS:
        known = " or ".join(f"{major}.{minor}" for major, minor in PYTHON_VERSIONS)
        raise ImportError(
            f"secretflow-prune needs Python {known}, for which alone upstream has compiled parts, got "
            f"{version[0]}.{version[1]}: make an environment with one of them (uv venv --python 3.11)"
        )


def install() -> None:
    """Makes the private names importable in this process; a second call changes nothing."""
    if not any(isinstance(finder, _UpstreamFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _UpstreamFinder())


def upstream(name: str) -> ModuleType:
    """Loads the module of upstream's that a module of the fork hides.

    Args:
        name: full public name of a module (not of a package), for example
            ``"secretflow.ml.nn.fl.fl_model"``.

    Returns:
        The module of upstream's, loaded once for each process.

    Raises:
        ModuleNotFoundError: upstream has no such module, or is not installed.
    """
    package, _, leaf = name.rpartition(".")
    return importlib.import_module(f"{package}.{_PREFIX}{leaf}")


def lazy(
    package: str, exports: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Public names of a package that are imported when they are first asked for (PEP 562).

    A name that is not exported but is a submodule is imported too: upstream loads nearly all of its
    submodules with the package, so its users reach them as attributes.

    Args:
        package: full name of the package.
        exports: for each public name, the module that defines it. The empty module name marks a name
            that is itself a submodule.

    Returns:
        ``__getattr__``, ``__dir__`` and ``__all__`` for the package's namespace.
    """

    def load(name: str) -> Any:
        module = exports.get(name)
        if module:
            value = getattr(importlib.import_module(module), name)
        elif not name.startswith("__") and find_spec(f"{package}.{name}") is not None:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *exports})

    return load, names, sorted(exports)
