"""The packages: their size once installed, the console's memory, `ha status`, LuCI's first paint.

Everything runs as installed: compiled packages, in an interpreter that has nothing else of the
product. Sizes are sums of file sizes; on a compressed flash file system they take about a third.
Anchors: the bare start of the interpreter (for `ha status`), an interpreter that has imported
asyncio, ssl and json and sleeps (for the console), and a page with one word (for LuCI's pages,
which are shown by the stand-in for LuCI; the real one adds its frame).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selenium import webdriver

from controlone_ha.errors import LabError
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.figures import Figure, median_figure
from controlone_ha.lab.node import LabNode
from scripts.packages import build
from tests.cluster.support import ha, paired_lab
from tests.package.conftest import headless_chromium
from tests.package.luci_host import LuciHost
from tests.package.opkg import Installer
from tests.package.scratch import ScratchRoot
from tests.waiting import wait_for

RUNS = 3
COMMANDS = 15
PAINTS = 5
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
SITE = f"usr/lib/python{VERSION}/site-packages"
DEVICE = ("controlone-common", "controlone-console")
PAGES = ("overview", "settings")
WORD = "/word"
SLEEP = "import asyncio, json, ssl, time; time.sleep(600)"


def figures() -> list[Figure]:
    """Measure everything; takes about a minute and a half."""
    place = Path("build").resolve()
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="packages-", dir=place) as name:
        top = Path(name)
        cache = build.cache_directory() / "python-sources"
        files = build.build(top / "feed", python=VERSION, bytecode=True, pypi=cache)
        found, installed = _installed(files, top)
        with paired_lab(figure_one()) as lab:
            found += _console(lab, _interpreter(top / "console", installed, DEVICE))
            found += _status(lab.node("m1"), _interpreter(top / "server", installed, installed))
            found += _paint(lab.node("s1"))
    return found


# -- size ------------------------------------------------------------------------------------------


def _installed(files: Sequence[Path], top: Path) -> tuple[list[Figure], dict[str, Path]]:
    """Install every package into a scratch root; return the figures, and modules by package."""
    sizes: dict[str, int] = {}
    modules: dict[str, Path] = {}
    root = ScratchRoot(None)
    try:
        root.put("usr/bin/uci", b'#!/bin/sh\n[ "$3" = ha.default ] && echo ha\n', 0o755)
        root.put("etc/init.d/rpcd", b"#!/bin/sh\n", 0o755)
        installer = Installer(root)
        installer.assume(files)
        for file in files:
            package = file.name.partition("_")[0]
            installer.install(file)
            listed = (root.path / "usr/lib/opkg/info" / f"{package}.list").read_text().split()
            places = [root.path / place.lstrip("/") for place in listed]
            sizes[package] = sum(place.stat().st_size for place in places if place.exists())
            modules[package] = top / "modules" / package
            for place, name in zip(places, listed, strict=True):
                if name.startswith(f"/{SITE}/"):
                    target = modules[package] / name.removeprefix(f"/{SITE}/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(place, target)
    finally:
        root.close()
    rows = [(package, sizes[package]) for package in sorted(sizes)]
    rows.append(("console_device", sum(sizes[package] for package in DEVICE)))
    rows.append(("server_node", sum(sizes.values()) - sizes["controlone-console"]))
    return [
        Figure(name=f"installed_kb_{name}", value=round(size / 1024, 1), unit="KB")
        for name, size in rows
    ], modules


def _interpreter(place: Path, modules: Mapping[str, Path], packages: Sequence[str] | Any) -> Path:
    """Make an interpreter with the modules of these packages in its site-packages, no others."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    for package in packages:
        source = modules[package]
        if source.is_dir():
            target = place / f"lib/python{VERSION}/site-packages"
            shutil.copytree(source, target, dirs_exist_ok=True)
    return place / "bin/python3"


# -- the console -----------------------------------------------------------------------------------


def _console(lab: Lab, python: Path) -> list[Figure]:
    """Return the memory of a console's client that is logged in, beside a bare interpreter's."""
    device, server = lab.node("p1"), lab.node("m1")
    config = (
        f"config console 'default'\n\toption name 'desk-1'\n\toption server '{server.address}'\n"
    )
    device.path("/etc/config/console").write_text(config)
    entry = [str(python), "-P", "-m", "controlone_ha.console"]
    with device.spawn([*entry, "enrol", server.address], stdout=subprocess.PIPE) as enrolling:
        assert enrolling.stdout is not None
        line = next(line for line in enrolling.stdout if b"ha console approve" in line)
        if ha(server, *line.decode().split()[1:]).returncode != 0 or enrolling.wait(30) != 0:
            raise LabError("the console could not be enrolled")
    memory: list[dict[str, float]] = []
    anchors: list[dict[str, float]] = []

    def logged_in() -> bool:
        said = device.exec([*entry, "status", "--json"])
        return said.returncode == 0 and json.loads(said.stdout)["node"] == "m1"

    for _ in range(RUNS):
        with _running(device, [*entry, "run"]) as pid:
            wait_for(logged_in, 30.0)
            time.sleep(2.0)
            memory.append(_memory(pid))
        with _running(device, [str(python), "-I", "-S", "-c", SLEEP]) as pid:
            time.sleep(1.0)
            anchors.append(_memory(pid))
    anchor = "python with asyncio, ssl, json"
    return [
        median_figure(
            f"console_package_{kind}_mb", [item[kind] for item in memory], "MB",
            anchor=anchor, anchor_values=[item[kind] for item in anchors],
        )
        for kind in ("rss", "pss")
    ]  # fmt: skip


@contextlib.contextmanager
def _running(node: LabNode, words: Sequence[str]) -> Iterator[int]:
    """Run a program in a node; yield its pid as this process sees it."""
    process = node.spawn(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(lambda: children.read_text().split())
        yield int(children.read_text().split()[0])
    finally:
        process.kill()
        process.wait()


def _memory(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    values = {line.split(":")[0].lower(): int(line.split()[1]) * 1024 / 1e6 for line in lines}
    return {kind: values[kind] for kind in ("rss", "pss")}


# -- the command -----------------------------------------------------------------------------------

_MEASURE = """
import json, os, sys, time
count, commands = json.loads(sys.argv[1])
found = {name: [] for name in commands}
for _ in range(count):
    for name, words in commands.items():
        started = time.perf_counter()
        pid = os.posix_spawnp(words[0], words, os.environ, file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
        _pid, code, used = os.wait4(pid, 0)
        assert code == 0, (words, code)
        found[name].append(((time.perf_counter() - started) * 1000, used.ru_maxrss * 1024 / 1e6))
print(json.dumps(found))
"""

_PATH = 'sys.path.append("%s/lib/python%d.%d/site-packages" % (sys.prefix, *sys.version_info[:2]))'
"""How the entry finds the modules; in an environment without `site` that is not its own prefix."""


def _status(node: LabNode, python: Path) -> list[Figure]:
    """Time `ha status` as the package installs it, beside the bare start of its interpreter."""
    place = python.parent.parent / f"lib/python{VERSION}/site-packages"
    text = (Path(__file__).resolve().parents[2] / "files/usr/sbin/ha").read_text()
    assert _PATH in text
    entry = python.parent / "ha"
    entry.write_text(text.replace(_PATH, f"sys.path.append({str(place)!r})".replace("'", '"')))
    imports = f"import sys; sys.path.append({str(place)!r}); import controlone_ha.control.command"
    bare = [str(python), "-I", "-S", "-c", "pass"]
    commands = {
        "status": ["sh", str(entry), "status"],
        "import": [*bare[:-1], imports],
        "bare": bare,
    }
    words = [sys.executable, "-I", "-S", "-c", _MEASURE, json.dumps([COMMANDS, commands])]
    done = node.exec(words, timeout=120, check=True, env={"CONTROLONE_PYTHON": str(python)})
    found: dict[str, list[tuple[float, float]]] = json.loads(done.stdout)
    times = {name: [time for time, _memory in pairs] for name, pairs in found.items()}
    memory = {name: [megabytes for _time, megabytes in pairs] for name, pairs in found.items()}
    anchor = "python3 -I -S -c pass"
    return [
        median_figure(
            "ha_status_ms", times["status"], "ms", anchor=anchor, anchor_values=times["bare"]
        ),
        median_figure(
            "ha_import_ms",
            [one - bare for one, bare in zip(times["import"], times["bare"], strict=True)],
            "ms, beyond the start of the interpreter",
        ),
        median_figure(
            "ha_status_rss_mb", memory["status"], "MB", anchor=anchor, anchor_values=memory["bare"]
        ),
    ]


# -- the page --------------------------------------------------------------------------------------


class _Host(LuciHost):
    """The pages, and beside them one with a single word."""

    def page(self, path: str, query: str) -> tuple[str, bytes] | None:
        if path == WORD:
            return "text/html", b"<!DOCTYPE html><title>anchor</title><p>word</p>"
        return super().page(path, query)


def _paint(node: LabNode) -> list[Figure]:
    """Time from the navigation to the first contentful paint, which needs the daemon's answer."""
    times: dict[str, list[float]] = {page: [] for page in (*PAGES, WORD)}
    browser = headless_chromium()
    try:
        with _Host(node, sys.executable) as host:
            for _ in range(PAINTS):
                for page in PAGES:
                    times[page].append(_first(browser, f"{host.url}/view/controlone/{page}?en"))
                times[WORD].append(_first(browser, f"{host.url}{WORD}"))
    finally:
        browser.quit()
    names = {"overview": "luci_first_paint_ms", "settings": "luci_settings_first_paint_ms"}
    return [
        median_figure(
            names[page], times[page], "ms", anchor="a page with one word", anchor_values=times[WORD]
        )
        for page in PAGES
    ]


_PAINT = """
const found = performance.getEntriesByName('first-contentful-paint');
return found.length ? found[0].startTime : 0;
"""


def _first(browser: webdriver.Chrome, url: str) -> float:
    browser.get("about:blank")
    browser.get(url)
    wait_for(lambda: browser.execute_script(_PAINT), 30.0)
    return float(browser.execute_script(_PAINT))


if __name__ == "__main__":
    for figure in figures():
        print(figure.to_json())
