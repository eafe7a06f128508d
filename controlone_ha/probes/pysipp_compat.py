"""pysipp 0.1.0, importable on the Pythons and pluggies of today.

The only release on PyPI was written for pluggy below 1.0 and Python below 3.12: it passes
``implprefix`` to ``pluggy.PluginManager``, and imports ``imp`` and ``distutils.spawn``. While it is
imported, and only then, a ``PluginManager`` that swallows the argument and stand-ins for the two
modules are in place. The hooks themselves are found by their markers, which pluggy still knows.

The stand-in for ``imp`` refuses to load scenario folders' Python files: nothing here uses them.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["load"]


def load() -> Any:
    """Return the module ``pysipp``. Raises ``ImportError`` when it is not installed.

    Not for several threads at once: the stand-ins are in ``sys.modules`` during the import.
    """
    if "pysipp" in sys.modules:
        return sys.modules["pysipp"]
    with _pluggy_of_old(), _modules_of_old(), warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # `key[0] is not '_'` in its source
        warnings.simplefilter("ignore", DeprecationWarning)  # the real imp and distutils
        return importlib.import_module("pysipp")


@contextmanager
def _pluggy_of_old() -> Iterator[None]:
    pluggy: Any = importlib.import_module("pluggy")
    present: Any = pluggy.PluginManager

    class TolerantPluginManager(present):
        def __init__(self, project_name: str, implprefix: str | None = None) -> None:
            super().__init__(project_name)

    pluggy.PluginManager = TolerantPluginManager
    try:
        yield
    finally:
        pluggy.PluginManager = present


@contextmanager
def _modules_of_old() -> Iterator[None]:
    spawn = types.ModuleType("distutils.spawn")
    spawn.find_executable = shutil.which  # type: ignore[attr-defined]
    distutils = types.ModuleType("distutils")
    distutils.spawn = spawn  # type: ignore[attr-defined]
    distutils.__path__ = []
    imp = types.ModuleType("imp")
    imp.load_source = _no_load_source  # type: ignore[attr-defined]
    stand_ins = {"distutils": distutils, "distutils.spawn": spawn, "imp": imp}
    kept = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _no_load_source(name: str, path: str) -> types.ModuleType:
    raise ImportError(f"{path}: scenario folders with Python files are not supported")
