"""`ha licence [list | verify FILE | install FILE]`: what is licensed, and new licences.

A file is verified and installed without the daemon; it then spreads as the item `licences`.
"""

from __future__ import annotations

import sys

from controlone_ha.control.arguments import UsageError
from controlone_ha.control.client import Client, DaemonError
from controlone_ha.control.table import Cell, clean, table
from controlone_ha.control.terminal import DONE, FAILED, NOT_HEALTHY, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from controlone_ha.control.arguments import Request
    from controlone_ha.control.reports import View

ARGUMENTS = {"list": 0, "verify": 1, "install": 1}


def run(request: Request, terminal: Terminal, view: View) -> int:
    """Run the command; raise ``UsageError`` or ``ControlOneError``."""
    action, *rest = request.arguments or ["list"]
    if action not in ARGUMENTS or len(rest) != ARGUMENTS[action]:
        raise UsageError("error.licence_action", word=" ".join(request.arguments))
    if action == "list":
        return _list(terminal, view)
    if "site" not in sys.modules:
        import site  # the shell entry starts Python without it; `cryptography` may need its paths

        site.main()
    return _file(action, rest[0], terminal)


def _list(terminal: Terminal, view: View) -> int:
    client = Client()
    try:
        answer = client.call("licence")
    finally:
        client.close()
    if terminal.is_json:
        terminal.write_json(answer)
    else:
        terminal.write(render(answer, view))
    return NOT_HEALTHY if answer["unlicensed"] else DONE


def render(answer: dict[str, Any], view: View) -> str:
    """Return the table of licences and who is covered by them."""
    texts = view.texts
    masters, missing = answer["masters"], answer["unlicensed"]
    names = ", ".join(map(clean, masters)) or "-"
    lines = [texts("licence.masters", count=len(masters), names=names, valid=answer["valid"])]
    if missing:
        lines.append(texts("licence.missing", names=", ".join(map(clean, missing))))
    if answer["licences"]:
        heads = [texts(f"licence.{name}") for name in ("serial", "state", "expires", "customer")]
        rows = [
            [
                Cell(clean(item["serial"] or item["file"])),
                Cell(
                    texts.word("licence_state", item["state"]),
                    "" if item["state"] == "valid" else "bad",
                ),
                Cell(clean(item["expires"] or "-")),
                Cell(clean(item["customer"] or item["detail"] or "-")),
            ]
            for item in answer["licences"]
        ]
        lines += ["", *table(heads, rows, view.paint, columns=view.columns)]
    else:
        lines.append(texts("licence.none", directory=clean(answer["directory"])))
    return "\n".join(lines)


def _file(action: str, name: str, terminal: Terminal) -> int:
    from controlone_ha.paths import node_paths
    from controlone_ha.peers.licences import LicenceFiles, vendor_key, verify

    try:
        with open(name, "rb") as stream:
            content = stream.read(1 << 20)
    except OSError as error:
        terminal.complain(f"{name}: {error.strerror}")
        return FAILED
    if action == "verify":
        licence = verify(content, vendor_key())
    else:
        files = LicenceFiles(node_paths().licence_dir)
        try:
            licence = files.install(content)
        except OSError as error:
            terminal.complain(f"{files.directory}: {error.strerror}")
            return FAILED
        _tell_daemon()
    if terminal.is_json:
        fields = {"serial": licence.serial, "customer": licence.customer}
        terminal.write_json({**fields, "nodes": sorted(licence.nodes), "expires": licence.expires})
    else:
        key = "licence.verified" if action == "verify" else "licence.installed"
        terminal.write(
            terminal.texts(
                key,
                serial=licence.serial,
                customer=licence.customer or "-",
                expires=licence.expires or "-",
            )
        )
    return DONE


def _tell_daemon() -> None:
    try:
        client = Client()
        try:
            client.call("licence")
        finally:
            client.close()
    except DaemonError:
        return  # it looks when it starts
