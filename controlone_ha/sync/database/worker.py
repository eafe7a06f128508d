"""The child process: JSON-RPC, one line a message, on standard input and output, around an engine.

Requests (the other end is ``client``):

``configure {SETTINGS}``            → ``{}``; another configuration begins a new run
``status {}``                       → ``Engine.status``
``sync {}``                         → ``{"peers": [name, …]}``: those asked to compare all
``diff {"peer"}``                   → ``{"collections": {namespace: {kind: count}}}``
``forget {"peer"}``                 → ``{"released": n}``: tombstones no longer kept for it
``conflicts {"limit"}``             → ``[{"id", "namespace", "lost", "won"}, …]``, newest first
``rotate {"out"}``                  → ``{}``: the node's mongod reads its certificates again;
                                    ``out``: a peer is trusted no longer, the others log in anew

Requests run in threads, since each may wait for a database. The process ends with its input, and
the kernel ends it when its parent dies.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pymongo.errors import PyMongoError

from controlone_ha import jsonrpc
from controlone_ha.errors import ControlOneError, RefusedError
from controlone_ha.logs import wants_debug
from controlone_ha.probes.child import die_with_parent
from controlone_ha.sync.database import orders
from controlone_ha.sync.database.engine import Engine
from controlone_ha.sync.database.settings import settings_from_json

log = logging.getLogger("database.worker")

PARALLEL = 4
SWITCH_INTERVAL = 0.0005
"""Seconds after which a busy thread lets others run: a bulk copy must not hold up urgent writes,
each of which waits for its turn some ten times."""


class Worker:
    """Serves requests from one pipe and answers on another."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests = requests
        self._answers = answers
        self._writing = threading.Lock()
        self._engine = Engine()
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="request")
        self._methods: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "configure": self._configure,
            "status": lambda _: self._engine.status(),
            "rotate": lambda params: orders.rotate(
                self._run(), is_somebody_out=bool(params.get("out"))
            ),
            "sync": lambda _: orders.sync(self._run()),
            "diff": lambda params: orders.diff(self._run(), params["peer"]),
            "forget": lambda params: orders.forget(self._run(), params["peer"]),
            "conflicts": lambda params: orders.conflicts(self._run(), int(params["limit"])),
        }

    def run(self) -> None:
        """Serve until the input ends."""
        self._engine.start()
        buffer = b""
        while data := os.read(self._requests, 65536):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._serve(line)

    def _serve(self, line: bytes) -> None:
        try:
            message = jsonrpc.decode(line)
        except jsonrpc.RpcError as error:
            self._write(jsonrpc.encode_fault(error))
            return
        method = self._methods.get(message.method or "")
        if method is None:
            text = f"no method {message.method!r} here"
            self._write(jsonrpc.encode_error(message.id, jsonrpc.METHOD_NOT_FOUND, text))
            return
        self._threads.submit(self._answer, message.id, method, message.params or {})

    def _answer(self, request_id: Any, method: Any, params: Mapping[str, Any]) -> None:
        try:
            line = jsonrpc.encode_result(request_id, method(params))
        except (ControlOneError, PyMongoError) as error:
            line = jsonrpc.encode_error(request_id, jsonrpc.REFUSED, str(error)[:500])
        except Exception as error:  # the reaper of requests: told and logged
            log.exception("request failed")
            text = f"{type(error).__name__}: {error}"
            line = jsonrpc.encode_error(request_id, jsonrpc.INTERNAL_ERROR, text)
        self._write(line)

    def _configure(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self._engine.configure(settings_from_json(params))
        return {}

    def _run(self) -> Any:
        run = self._engine.run
        if run is None:
            text = self._engine.status()["text"] or "the database is not ready yet"
            raise RefusedError(f"this node's own database: {text}")
        return run

    def _write(self, line: bytes) -> None:
        view = memoryview(line)
        with self._writing:
            try:
                while view:
                    view = view[os.write(self._answers, view) :]
            except BrokenPipeError:
                os._exit(0)  # `ha` is gone


def main() -> None:
    """Serve the parent whose process id is the only argument."""
    die_with_parent(int(sys.argv[1]))
    sys.setswitchinterval(SWITCH_INTERVAL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for `ha`, which ends this one
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if wants_debug() else logging.INFO,
        format="ha-database[%(levelname)s] %(message)s",
    )
    logging.getLogger("pymongo").setLevel(logging.ERROR)
    answers = os.dup(1)
    os.dup2(2, 1)  # nothing that prints may break the protocol
    Worker(0, answers).run()
    os._exit(0)  # threads that wait for a database shall not hold the end up
