"""Imports paramiko without what this product does not use of it, as a daemon must stay small.

- `paramiko.config` takes the `invoke` package along when there is one, for ``Match exec`` in
  ssh_config files, which nobody reads here: its YAML reader and `unittest.mock` cost 3 MB.
- paramiko asks `importlib.metadata` for its own version number, which costs a reader of e-mail and
  one of ZIP archives: 1.5 MB. The name of its folder says the same.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from types import ModuleType
from typing import Any

_LOCK = threading.Lock()
_METADATA = "importlib.metadata"


class _Versions(ModuleType):
    """Stands in for `importlib.metadata` and becomes the real one when more than versions is
    asked for.
    """

    def version(self, name: str) -> str:
        """Return the version of an installed package, from its .dist-info folder."""
        start, end = f"{name.lower()}-", ".dist-info"
        for place in sys.path:
            try:
                entries = os.listdir(place or ".")
            except OSError:
                continue
            for entry in entries:
                if entry.lower().startswith(start) and entry.endswith(end):
                    return entry[len(start) : -len(end)]
        return str(self.__getattr__("version")(name))

    def __getattr__(self, name: str) -> Any:
        _forget(_METADATA)
        return getattr(importlib.import_module(_METADATA), name)


def _forget(name: str) -> None:
    """Let the next import of ``name`` find the real module."""
    if sys.modules.get(name) is None or isinstance(sys.modules[name], _Versions):
        sys.modules.pop(name, None)


def load_paramiko() -> None:
    """Have paramiko imported. Callable from any thread, and again: then it costs nothing."""
    with _LOCK:
        if "paramiko" in sys.modules:
            return
        sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]  # `import invoke` fails
        sys.modules.setdefault(_METADATA, _Versions(_METADATA))
        try:
            import paramiko  # noqa: F401
        finally:
            _forget("invoke")
            _forget(_METADATA)
