"""`ha sync` and `ha diff`: forcing a full synchronisation, and looking at what differs.

`ha sync` shows a bar on a terminal (files, bytes, rate, remaining time), one JSON object a line
with `--json`, and else the result alone. Exit code 1 when a peer failed.
"""

from __future__ import annotations

import sys
import time

from controlone_ha.control.client import Client
from controlone_ha.control.table import clean
from controlone_ha.control.terminal import DONE, FAILED, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from controlone_ha.control.arguments import Request

POLL = 0.2
TIMEOUT = 120.0
BAR = 20


def run(request: Request, terminal: Terminal) -> int:
    """Run one of the two commands."""
    return (_sync if request.command == "sync" else _diff)(request, terminal)


def _sync(request: Request, terminal: Terminal) -> int:
    client = Client(timeout=TIMEOUT)
    has_bar = terminal.is_terminal and not terminal.is_json
    wait = POLL / 10
    last = None
    try:
        answer = client.call("sync", {"item": request.arguments[0]} if request.arguments else {})
        while not answer["done"]:
            if terminal.is_json and answer["peers"] != last:
                terminal.write_json(answer, line=True)
                sys.stdout.flush()
                last = answer["peers"]
            elif has_bar:
                sys.stdout.write("\r\x1b[K" + bar(answer, terminal))
                sys.stdout.flush()
            time.sleep(wait)
            wait = min(POLL, wait * 2)
            answer = client.call("sync_progress", {"run": answer["run"]})
    finally:
        client.close()
    if terminal.is_json:
        terminal.write_json(answer, line=True)
    else:
        terminal.write(("\r\x1b[K" if has_bar else "") + _result(answer, terminal))
    return FAILED if any(row["error"] for row in answer["peers"]) else DONE


def bar(answer: dict[str, Any], terminal: Terminal) -> str:
    """Return one line that says how far a synchronisation is."""
    texts = terminal.texts
    if answer["scanning"]:
        return texts("sync.scanning", items=", ".join(answer["items"]))
    peers = answer["peers"]
    done, total = (sum(row[key] for row in peers) for key in ("bytes", "bytes_total"))
    files, files_total = (sum(row[key] for row in peers) for key in ("files", "files_total"))
    share = done / total if total else sum(row["done"] for row in peers) / max(len(peers), 1)
    rate = done / answer["seconds"] if answer["seconds"] > 0 else 0.0
    filled = int(share * BAR)
    text = f"[{'#' * filled}{'.' * (BAR - filled)}] " + texts(
        "sync.progress",
        files=files,
        files_total=files_total,
        done=size(done),
        total=size(total),
        rate=size(rate),
    )
    if rate and total > done:
        text += ", " + texts("sync.remaining", seconds=f"{(total - done) / rate:.0f}")
    return text[: max(terminal.columns or 100, 20) - 1]


def size(count: float) -> str:
    """Return bytes in words."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"


def _result(answer: dict[str, Any], terminal: Terminal) -> str:
    texts = terminal.texts
    lines = []
    for row in answer["peers"]:
        moved = texts("sync.moved", files=row["files"], size=size(row["bytes"]))
        said = clean(texts.said(row["error"])) if row["error"] else texts("sync.equal")
        lines.append(f"{clean(row['peer'])}: {said}; {moved}")
    if not answer["peers"]:
        lines.append(texts("sync.no_peers"))
    lines.append(
        texts("sync.finished", items=", ".join(answer["items"]), seconds=f"{answer['seconds']:.1f}")
    )
    return "\n".join(lines)


def _diff(request: Request, terminal: Terminal) -> int:
    params = {"peer": request.arguments[0]}
    if len(request.arguments) > 1:
        params["item"] = request.arguments[1]
    client = Client(timeout=TIMEOUT)
    try:
        answer = client.call("diff", params)
    finally:
        client.close()
    if terminal.is_json:
        terminal.write_json(answer)
        return DONE
    texts = terminal.texts
    peer = clean(answer["peer"])
    if not answer["files"]:
        terminal.write(texts("diff.equal", peer=peer))
        return DONE
    lines = []
    for row in answer["files"]:
        what = texts(f"diff.{row['what']}", peer=peer)
        lines.append(f"{row['item']}  {clean(row['path'])}: {what}")
        for side, name in (("here", texts("diff.here")), ("there", peer)):
            found = row[side]
            if found:
                moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["time"]))
                lines.append(f"    {name}: {moment}, {clean(found['node'])}, {size(found['size'])}")
        lines += [f"    {clean(line)}" for line in row.get("lines") or ()]
    terminal.write("\n".join(lines))
    return DONE
