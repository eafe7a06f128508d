"""`ha database`, `ha sync database`, `ha diff PEER database` and `ha forget PEER`.

`setup` works without the daemon and imports the driver; everything else asks the daemon. Exit code
4 of `setup`: mongod's own options are not right, the lines are printed.
"""

from __future__ import annotations

import sys
import time

from controlone_ha.control.arguments import UsageError
from controlone_ha.control.client import Client
from controlone_ha.control.render import moment
from controlone_ha.control.table import clean
from controlone_ha.control.terminal import DONE, FAILED, NOT_HEALTHY, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from controlone_ha.control.arguments import Request

POLL = 0.3
TIMEOUT = 660.0
LIMIT = 20


def run(request: Request, terminal: Terminal) -> int:
    """Run `ha database [ORDER]` or `ha forget PEER`."""
    if request.command == "forget":
        answer = ask({"order": "forget", "peer": request.arguments[0]})
        return _told(answer, terminal, terminal.texts("database.forgotten", **_shown(answer)))
    order = request.arguments[0] if request.arguments else "status"
    if order == "setup":
        return setup(request, terminal)
    if order == "conflicts":
        return _conflicts(request, terminal)
    if order == "status":
        return _status(terminal)
    raise UsageError("error.database_order", word=order)


def ask(params: dict[str, Any]) -> Any:
    """Give the daemon one order for the database."""
    client = Client(timeout=TIMEOUT)
    try:
        return client.call("database", params)
    finally:
        client.close()


def _shown(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: clean(str(value)) for name, value in answer.items()}


def _told(answer: Any, terminal: Terminal, text: str) -> int:
    if terminal.is_json:
        terminal.write_json(answer)
    else:
        terminal.write(text)
    return DONE


def sync(terminal: Terminal) -> int:
    """Compare everything with every peer, and show how far it is."""
    started = time.time()
    peers = ask({"order": "sync"})["peers"]
    has_bar = terminal.is_terminal and not terminal.is_json
    while True:
        said = ask({"order": "status"})["peers"]
        rows = {name: said.get(name) or {} for name in peers}
        if has_bar:
            done = sum(row.get("full", {}).get("applied", 0) for row in rows.values())
            found = sum(row.get("full", {}).get("found", 0) for row in rows.values())
            rate = done / max(time.time() - started, 0.001)
            text = terminal.texts(
                "database.progress", done=done, rate=f"{rate:.0f}", remaining=max(0, found - done)
            )
            sys.stdout.write("\r\x1b[K" + text)
            sys.stdout.flush()
        waiting = [name for name, row in rows.items() if _is_waiting(row, started)]
        if not waiting:
            break
        time.sleep(POLL)
    if terminal.is_json:
        terminal.write_json(rows)
    elif has_bar:
        sys.stdout.write("\r\x1b[K")
    failed = False
    for name, row in rows.items():
        full = row.get("full") or {}
        if row.get("state") in ("down", "held", "waiting"):
            failed = failed or row["state"] != "waiting"
            text = clean(terminal.texts.said(row.get("text") or row["state"]))
        else:
            text = terminal.texts(
                "database.synced",
                applied=full.get("applied", 0),
                seconds=f"{full.get('seconds', 0):.1f}",
            )
        if not terminal.is_json:
            terminal.write(f"{clean(name)}: {text}")
    if not peers and not terminal.is_json:
        terminal.write(terminal.texts("sync.no_peers"))
    return FAILED if failed else DONE


def _is_waiting(row: dict[str, Any], started: float) -> bool:
    if row.get("state") in (None, "down", "held", "waiting"):
        return False
    return bool((row.get("full_sync_at") or 0) < started)


def diff(peer: str, terminal: Terminal) -> int:
    """Show how many documents differ from a peer, by collection."""
    answer = ask({"order": "diff", "peer": peer})
    if terminal.is_json:
        terminal.write_json(answer)
        return DONE
    texts = terminal.texts
    if not answer["collections"]:
        terminal.write(texts("diff.equal", peer=clean(peer)))
    for namespace, kinds in sorted(answer["collections"].items()):
        parts = [
            f"{count} {texts('database.' + kind.replace(' ', '_'), peer=clean(peer))}"
            for kind, count in sorted(kinds.items())
        ]
        terminal.write(f"{clean(namespace)}: {', '.join(parts)}")
    return DONE


def _status(terminal: Terminal) -> int:
    answer = ask({"order": "status"})
    if terminal.is_json:
        terminal.write_json(answer)
        return DONE
    texts = terminal.texts
    text = f": {clean(texts.said(answer['text']))}" if answer.get("text") else ""
    terminal.write(texts("database.state", state=clean(answer["state"])) + text)
    for name, row in sorted((answer.get("peers") or {}).items()):
        since = moment(row["in_sync_at"], texts) if row.get("in_sync_at") else texts("sync.never")
        line = texts(
            "database.peer",
            peer=clean(name),
            state=clean(row["state"]),
            since=since,
            lag="?" if row.get("lag_ms") is None else row["lag_ms"],
            backlog=row["backlog"],
            conflicts=row["conflicts"],
        )
        terminal.write(line + (f": {clean(texts.said(row['text']))}" if row.get("text") else ""))
    return DONE


def _conflicts(request: Request, terminal: Terminal) -> int:
    answer = ask({"order": "conflicts", "limit": int(request.options.get("limit") or LIMIT)})
    if terminal.is_json:
        terminal.write_json(answer)
        return DONE
    texts = terminal.texts
    if not answer:
        terminal.write(texts("database.no_conflicts"))
    for row in answer:
        terminal.write(
            texts(
                "database.conflict",
                at=moment(row["won"]["at"], texts),
                namespace=clean(row["namespace"]),
                document=clean(row["document"]),
                lost=clean(row["lost"]["node"]),
                won=clean(row["won"]["node"]),
                id=clean(row["id"]),
            )
        )
    return DONE


def setup(request: Request, terminal: Terminal) -> int:
    """Make the node's own mongod right, or print which lines of mongod.conf are wrong."""
    from controlone_ha.config.settings import load_ha
    from controlone_ha.paths import node_paths
    from controlone_ha.peers.secret import cluster_keys
    from controlone_ha.probes.database import DatabaseTarget
    from controlone_ha.sync.database import files, options

    paths = node_paths()
    settings = load_ha(paths.config_dir)
    files.main()
    places = files.database_files(paths)
    wanted = options.lines(
        node_pem=str(places.node),
        pins_pem=str(places.pins),
        keyfile=str(places.keyfile),
        port=settings.database_port,
    )
    own = files.own_target(paths, settings.database, settings.database_port)
    administrator = None
    if request.options.get("user"):
        import getpass
        from dataclasses import replace

        password = getpass.getpass(terminal.texts("database.password"))
        administrator = replace(own, user=str(request.options["user"]), password=password)
    assert isinstance(own, DatabaseTarget)
    return _make_right(
        own, cluster_keys(settings.secret).database_password, administrator, wanted, terminal
    )


def _make_right(
    own: Any, password: str, administrator: Any, wanted: list[Any], terminal: Terminal
) -> int:
    from pymongo.errors import PyMongoError

    from controlone_ha.sync.database import options
    from controlone_ha.sync.database.clients import find_trouble, open_client
    from controlone_ha.sync.database.setup import SetupError, make_right, running_options

    texts = terminal.texts
    steps: list[str] = []
    wrong: list[Any] = []
    trouble = ""
    with open_client(own, own=True) as client:
        try:
            steps = make_right(own, password, administrator=administrator).steps
            wrong = options.wrong_lines(wanted, running_options(client))
        except SetupError as error:
            trouble = str(error)
        except PyMongoError as error:
            trouble = find_trouble(own, client, error).detail
    if terminal.is_json:
        terminal.write_json(
            {
                "done": steps,
                "wrong": [
                    {"option": item.line.path, "got": item.got, "expected": item.line.value}
                    for item in wrong
                ],
                "trouble": trouble,
            }
        )
        return NOT_HEALTHY if wrong or trouble else DONE
    for step in steps:
        terminal.write(step)
    for item in wrong:
        terminal.write(clean(item.text()))
    if trouble:
        terminal.write(texts("database.unreachable", reason=clean(trouble)))
        terminal.write(options.yaml(wanted))
    if not wrong and not trouble:
        terminal.write(texts("database.right"))
    return NOT_HEALTHY if wrong or trouble else DONE
