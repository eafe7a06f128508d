"""`ha support [FILE]`: one archive with what is needed to help, and no secret in it.

What goes in is a list, not whatever is found: configuration (values of secrets masked), status,
history, audit, checks, links, licences, versions. Private keys, certificates' keys and passwords
are not read for it; and every text is searched for the secrets of this node, and for what is
derived from the cluster's, before it is written.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tarfile
import time

from controlone_ha.control.client import ApiError, Client, DaemonError
from controlone_ha.control.terminal import DONE, FAILED, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from controlone_ha.control.arguments import Request
    from controlone_ha.paths import NodePaths

MASK = "********"
QUESTIONS: tuple[tuple[str, dict[str, object]], ...] = (
    ("status", {}),
    ("check", {}),
    ("links", {}),
    ("audit", {}),
    ("licence", {}),
    ("history", {"limit": 2000, "node": "all"}),
    ("live_calls", {}),
    ("conflicts", {}),
    ("metrics", {}),
)
_SECRET = re.compile(r"secret|passw|token|verifier|key|psk|\bpin\b|credential", re.IGNORECASE)
SHORTEST = 4
"""Characters from which a secret is searched for in every text."""


def run(request: Request, terminal: Terminal) -> int:
    """Write the archive (0600) and say where; works without the daemon, with less in it."""
    if "site" not in sys.modules:
        import site  # the shell entry starts Python without it

        site.main()
    from controlone_ha.paths import node_paths

    paths = node_paths()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"controlone-support-{os.uname().nodename}-{stamp}"
    target = request.arguments[0] if request.arguments else f"/tmp/{name}.tar.gz"
    secrets = secrets_of(paths)
    files = _answers(terminal) | _configuration(paths) | _machine()
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        terminal.complain(f"{target}: {error.strerror}")
        return FAILED
    with os.fdopen(handle, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for path, text in sorted(files.items()):
            content = masked(text, secrets).encode("utf-8", "replace")
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size, member.mtime, member.mode = len(content), int(time.time()), 0o600
            archive.addfile(member, io.BytesIO(content))
    if terminal.is_json:
        terminal.write_json({"file": target, "contents": sorted(files)})
    else:
        terminal.write(terminal.texts("support.done", file=target, count=len(files)))
    return DONE


def secrets_of(paths: NodePaths) -> list[str]:
    """Return every secret of this node that can be known, the longest first."""
    from controlone_ha.errors import ControlOneError
    from controlone_ha.peers.secret import cluster_keys
    from controlone_ha.uci import load

    found: set[str] = set()
    for file in sorted(paths.config_dir.glob("*")):
        try:
            package = load(file)
        except (ControlOneError, OSError):
            continue
        for section in package:
            for option in section:
                if _SECRET.search(option.name):
                    found.update(option.values)
                if (file.name, option.name) == ("ha", "secret"):
                    for value in option.values:
                        if value:
                            keys = cluster_keys(value)
                            found |= {keys.database_password, keys.link.hex()}
    own = paths.state_dir / "database" / "own.password"
    try:
        found.add(own.read_text(encoding="ascii").strip())
    except OSError:
        pass  # no database was set up here
    return sorted((item for item in found if len(item) >= SHORTEST), key=len, reverse=True)


def masked(text: str, secrets: list[str]) -> str:
    """Return ``text`` without the secrets."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def _answers(terminal: Terminal) -> dict[str, str]:
    files: dict[str, str] = {}
    for method, params in QUESTIONS:
        answer: Any
        try:
            client = Client(timeout=30.0)
            try:
                answer = client.call(method, params)
            finally:
                client.close()
        except (DaemonError, ApiError) as error:
            answer = {"error": str(error)}
        text = answer if isinstance(answer, str) else json.dumps(answer, indent=1)
        files[f"{method}.json" if not isinstance(answer, str) else f"{method}.txt"] = text
    return files


def _configuration(paths: NodePaths) -> dict[str, str]:
    """Return the UCI files with the values of secrets masked; what cannot be read is left out."""
    from controlone_ha.errors import ControlOneError
    from controlone_ha.uci import dumps, load

    files = {}
    for file in sorted(paths.config_dir.glob("*")):
        try:
            package = load(file)
        except (ControlOneError, OSError) as error:
            files[f"config/{file.name}.error"] = str(error)
            continue
        for section in package:
            for option in list(section):
                if _SECRET.search(option.name):
                    section.set(option.name, MASK)
        text = dumps(package)
        files[f"config/{file.name}"] = text if isinstance(text, str) else text.decode()
    return files


def _machine() -> dict[str, str]:
    import platform

    from controlone_ha import __version__

    lines = [f"release {__version__}", f"python {platform.python_version()}", platform.platform()]
    for name in ("/etc/openwrt_release", "/proc/loadavg", "/proc/meminfo", "/proc/uptime"):
        try:
            with open(name, encoding="utf-8", errors="replace") as stream:
                lines.append(f"== {name}\n{stream.read(4096)}")
        except OSError:
            continue
    return {"machine.txt": "\n".join(lines) + "\n"}
