"""The house rules that can be read from the source: pure core, direction of imports, size.

The checker works on source text, so that it is itself tested on made-up violations.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "controlone_ha"
CHECKOUT = Path(__file__).resolve().parents[2]
LONGEST_MODULE = 600

EVERYDAY_ROOMS = {"config", "uci"}
SERVICE_ROOMS = {"peers", "sync", "probes", "services", "server", "conference", "console"}

ROOMS: Mapping[str, set[str]] = {
    # room: the other rooms it may import. Everybody may use core and the shared ground.
    "core": set(),
    "uci": set(),
    "config": {"uci"},
    "sip": set(),  # messages and machines of a protocol, no policy
    "probes": EVERYDAY_ROOMS | {"sip"},
    "peers": EVERYDAY_ROOMS,
    "services": EVERYDAY_ROOMS,
    # What is synchronised goes over the link; the database worker shares what probes know of it.
    "sync": EVERYDAY_ROOMS | {"peers", "probes"},
    "records": EVERYDAY_ROOMS | {"probes", "sync"},
    # Siblings' clients and their SIP and trust modules, but never the daemon or its control.
    "server": EVERYDAY_ROOMS | {"peers", "probes", "services", "conference", "sip", "records"},
    "conference": EVERYDAY_ROOMS | {"peers", "probes", "services", "server", "sip", "records"},
    "console": EVERYDAY_ROOMS | {"peers", "server"},
    "control": EVERYDAY_ROOMS | SERVICE_ROOMS,
    "daemon": EVERYDAY_ROOMS | SERVICE_ROOMS | {"control", "sip"},
    "lab": EVERYDAY_ROOMS | SERVICE_ROOMS | {"control", "daemon"},
}

SHARED_GROUND = {"__init__", "errors", "jsonrpc", "logs", "paths"}
"""Modules directly in the package. They import each other only; core may import errors alone."""

PURE_LIBRARY = {
    "__future__", "abc", "base64", "binascii", "bisect", "collections", "contextlib", "copy",
    "dataclasses", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "hmac",
    "ipaddress", "itertools", "json", "math", "numbers", "operator", "re", "statistics", "string",
    "struct", "textwrap", "types", "typing", "unicodedata", "zlib",
}  # fmt: skip
"""What core may import: computes, and neither asks the machine nor the clock nor chance."""

IMPURE_BUILTINS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}

STANDARD_ONLY = (f"{PACKAGE}.console", f"{PACKAGE}.peers.bridge", f"{PACKAGE}.peers.trust")
"""Modules (and packages) that must run with the standard library alone. What they import from the
package must import without any other library, but may use one inside functions they never call."""

OPTIONAL = {f"{PACKAGE}.console": {"pyroute2"}}
"""Third-party modules that may be imported inside a function, for the case that they are there."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported module, as an absolute dotted name, and how it is imported."""

    target: str
    line: int
    is_lazy: bool
    is_typing_only: bool


def imports_of(source: str, module: str, *, is_package: bool = False) -> list[Import]:
    """Return every import in the source, nested ones included; `module` resolves relative ones."""
    found: list[Import] = []

    def visit(node: ast.AST, is_lazy: bool, is_typing_only: bool) -> None:
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            # `from a import b` may name a module b or something in a: both readings count.
            targets = [f"{base}.{alias.name}" for alias in node.names]
        found.extend(
            Import(target=target, line=node.lineno, is_lazy=is_lazy, is_typing_only=is_typing_only)
            for target in targets
            if isinstance(node, ast.Import | ast.ImportFrom)
        )
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                visit(statement, is_lazy, True)
            for statement in node.orelse:
                visit(statement, is_lazy, is_typing_only)
            return
        is_lazy = is_lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            visit(child, is_lazy, is_typing_only)

    visit(ast.parse(source), False, False)
    return found


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    anchor = module.split(".")
    keep = len(anchor) - node.level + (1 if is_package else 0)
    return ".".join([*anchor[:keep], *([node.module] if node.module else [])])


def room_of(target: str) -> str | None:
    """Return the room (or shared module) of a dotted name of the package, None outside of it."""
    parts = target.split(".")
    if parts[0] != PACKAGE:
        return None
    return parts[1] if len(parts) > 1 else "__init__"


def impurities(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return what makes a module of core impure, one sentence each."""
    problems = []
    for item in imports_of(source, module, is_package=is_package):
        room = room_of(item.target)
        if room is None:
            if item.target.split(".")[0] not in PURE_LIBRARY:
                problems.append(f"{module}:{item.line} imports {item.target}: core must stay pure")
        elif room not in ("core", "errors"):
            problems.append(f"{module}:{item.line} imports {item.target}: core uses nobody")
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in IMPURE_BUILTINS
        ):
            problems.append(f"{module}:{node.lineno} calls {node.func.id}(): core must stay pure")
    return problems


def wrong_arrows(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return the imports that go the wrong way through the house, one sentence each."""
    home = room_of(module)
    assert home is not None
    if home not in ROOMS and home not in SHARED_GROUND:
        return [f"{module}: {home} is no room; add it to the table of rooms"]
    problems = []
    for item in imports_of(source, module, is_package=is_package):
        room = room_of(item.target)
        if room is None or room == home or room in SHARED_GROUND or not _is_inside(item.target):
            continue
        if home in SHARED_GROUND:
            problems.append(
                f"{module}:{item.line} imports {item.target}: shared ground uses no room"
            )
        elif room != "core" and room not in ROOMS[home]:
            problems.append(
                f"{module}:{item.line} imports {item.target}: {home} must not use {room}"
            )
    return problems


def _is_inside(target: str) -> bool:
    """Tell whether a name below the package is a room, and not something in its __init__."""
    room = room_of(target)
    return room in ROOMS or (CHECKOUT / PACKAGE / str(room)).is_dir()


def foreign_imports(
    module: str, read: Callable[[str], tuple[str, bool] | None], optional: Iterable[str] = ()
) -> list[str]:
    """Return the third-party imports of `module`, and those that importing it leads to.

    Of the module itself every import counts, of the ones behind it those at import time.

    read: gives (source, is it a package) of a dotted name of the package, None if there is no such
    module.
    """
    problems: list[str] = []
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        answer = read(name)
        if answer is None:
            continue
        source, is_package = answer
        waiting.extend(name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1))
        for item in imports_of(source, name, is_package=is_package):
            if item.is_typing_only or (item.is_lazy and name != module):
                continue
            top = item.target.split(".")[0]
            if top == PACKAGE:
                waiting += [item.target, item.target.rpartition(".")[0]]
            elif top in sys.stdlib_module_names:
                continue
            elif not (item.is_lazy and top in set(optional)):
                problems.append(
                    f"{name}:{item.line} imports {top}, reached from {module}, "
                    "which must run with the standard library alone"
                )
    return problems


@cache
def read_module(name: str) -> tuple[str, bool] | None:
    """Return the source of a module of the checkout and whether it is a package."""
    path = CHECKOUT.joinpath(*name.split("."))
    for candidate, is_package in ((path / "__init__.py", True), (path.with_suffix(".py"), False)):
        if candidate.is_file():
            return candidate.read_text(encoding="utf-8"), is_package
    return None


def modules(below: str = PACKAGE) -> Iterator[tuple[str, str, bool]]:
    """Yield (dotted name, source, is it a package) of every module below a dotted name."""
    base = CHECKOUT.joinpath(*below.split("."))
    single = base.with_suffix(".py")
    for path in sorted([*base.rglob("*.py"), *([single] if single.is_file() else [])]):
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        yield name, path.read_text(encoding="utf-8"), is_package


class TestTheHouse:
    """The rules, on the real source."""

    def test_core_imports_nothing_that_touches_the_world(self) -> None:
        checked = list(modules(f"{PACKAGE}.core"))
        assert checked, "core has no modules: the path of this check is wrong"
        problems = [p for n, s, k in checked for p in impurities(s, n, is_package=k)]
        assert not problems, "\n".join(problems)

    def test_imports_go_down_only(self) -> None:
        checked = list(modules())
        assert checked
        problems = [p for n, s, k in checked for p in wrong_arrows(s, n, is_package=k)]
        assert not problems, "\n".join(problems)

    def test_what_a_console_device_gets_needs_the_standard_library_only(self) -> None:
        problems = []
        for below in STANDARD_ONLY:
            for name, _, _ in modules(below):
                problems += foreign_imports(name, read_module, OPTIONAL.get(below, ()))
        assert not problems, "\n".join(problems)

    def test_importing_a_room_loads_no_third_party_library(self) -> None:
        problems = []
        for name, source, is_package in modules():
            if is_package:
                problems += [
                    f"{name}/__init__.py:{item.line} imports {item.target}"
                    for item in imports_of(source, name, is_package=True)
                    if item.target.split(".")[0] not in {PACKAGE, *sys.stdlib_module_names}
                ]
        assert not problems, "\n".join(problems)

    def test_no_module_is_too_long_to_be_read(self) -> None:
        problems = [
            f"{name}: {source.count(chr(10))} lines; more than {LONGEST_MODULE} want splitting"
            for name, source, _ in modules()
            if source.count("\n") > LONGEST_MODULE
        ]
        assert not problems, "\n".join(problems)


class TestTheChecker:
    """The checker can fail: made-up sources that break each rule."""

    @pytest.mark.parametrize(
        "source",
        [
            "import os",
            "import os.path as p",
            "from time import monotonic",
            "import asyncio, json",
            "from datetime import datetime",
            "def later():\n    import random",
            "try:\n    import pymongo\nexcept ImportError:\n    pass",
            "from pathlib import Path",
            "from ..jsonrpc import call",
            "from controlone_ha.uci import parser",
            "from controlone_ha import paths",
            "text = open('/etc/config/ha').read()",
            "print('moved')",
        ],
    )
    def test_an_impure_core_module_is_found(self, source: str) -> None:
        assert len(impurities(source, f"{PACKAGE}.core.made_up")) == 1

    def test_a_pure_core_module_is_left_alone(self) -> None:
        source = (
            "from __future__ import annotations\nimport enum\nfrom dataclasses import dataclass\n"
            "from controlone_ha.core.reasons import Reason\nfrom ..errors import ConfigError\n"
            "from . import ranking\n"
        )
        assert impurities(source, f"{PACKAGE}.core.made_up") == []

    @pytest.mark.parametrize(
        ("module", "source"),
        [
            ("server.door", "from controlone_ha.daemon import loop"),
            ("conference.engine", "import controlone_ha.daemon.loop"),
            ("console.client", "from ..daemon.loop import Loop"),
            ("control.command", "from controlone_ha.daemon.loop import Loop"),
            ("uci.parser", "from controlone_ha.config import schema"),
            ("config.schema", "from controlone_ha.probes.host import HostProbe"),
            ("peers.link", "from controlone_ha import sync"),
            ("probes.sip", "def f():\n    from controlone_ha.services import manager"),
            ("core.decide", "from controlone_ha.config.settings import HaSettings"),
            ("daemon.loop", "from controlone_ha.lab import cluster"),
            ("jsonrpc", "from controlone_ha.core.model import Role"),
            ("attic.thing", "import json"),
        ],
    )
    def test_an_arrow_that_goes_up_is_found(self, module: str, source: str) -> None:
        assert len(wrong_arrows(source, f"{PACKAGE}.{module}")) == 1

    def test_a_relative_import_in_a_package_file_is_resolved(self) -> None:
        (item,) = imports_of("from .loop import Loop", f"{PACKAGE}.daemon", is_package=True)
        assert item.target == f"{PACKAGE}.daemon.loop.Loop"

    def test_arrows_that_go_down_are_left_alone(self) -> None:
        source = (
            "from controlone_ha import __version__\nfrom controlone_ha.errors import PeerError\n"
            "from controlone_ha.core.model import Role\nfrom ..config import settings\n"
            "from . import frames\nimport paramiko\n"
        )
        assert wrong_arrows(source, f"{PACKAGE}.peers.link") == []

    def test_a_third_party_import_is_found_behind_another_module(self) -> None:
        sources = {
            PACKAGE: ("", True),
            f"{PACKAGE}.console": ("", True),
            f"{PACKAGE}.console.client": ("from controlone_ha.config import settings", False),
            f"{PACKAGE}.config": ("", True),
            f"{PACKAGE}.config.settings": ("import psutil", False),
        }
        (problem,) = foreign_imports(f"{PACKAGE}.console.client", sources.get)
        assert f"{PACKAGE}.config.settings:1 imports psutil" in problem
        sources[f"{PACKAGE}.config.settings"] = ("def f():\n    import psutil", False)
        assert foreign_imports(f"{PACKAGE}.console.client", sources.get) == []

    def test_an_optional_library_must_be_imported_inside_a_function(self) -> None:
        name = f"{PACKAGE}.console.events"
        lazy = {name: ("def watch():\n    import pyroute2", False)}
        eager = {name: ("import pyroute2", False)}
        assert foreign_imports(name, lazy.get, {"pyroute2"}) == []
        assert len(foreign_imports(name, eager.get, {"pyroute2"})) == 1
        assert len(foreign_imports(name, lazy.get)) == 1
