"""The probe worker: a child process of `ha` that holds pymongo and pyroute2.

``python -m controlone_ha.probes.worker PARENT`` speaks JSON-RPC, one line a message, on standard
input and output (``controlone_ha.jsonrpc``); ``worker_client`` is the other end. Both libraries are
imported with the first request that needs them, so a node without database pings pays for one.

Requests: ``ping_database {"target", "timeout"}`` → finding; ``watch_links {"interfaces"}`` →
``{"sequence", "snapshot"}``, and from then on a notification ``links`` with the same after each
change; ``status {}`` → ``{"pid", "rss_kib", "databases"}``.

Theory of operation. The main thread reads requests. Pings run in a few threads, since pymongo
blocks. Links run in one thread that sleeps in the kernel until netlink has news. Nothing polls. The
process ends with its input, and the kernel kills it when its parent dies (PR_SET_PDEATHSIG), so no
worker outlives a killed `ha`.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from controlone_ha import jsonrpc
from controlone_ha.probes.child import die_with_parent
from controlone_ha.probes.database import DatabasePinger, target_from_json
from controlone_ha.probes.links import LinkTable

_log = logging.getLogger(__name__)

PARALLEL_PINGS = 8
_TIDY_EVERY = 30.0


class Worker:
    """Serves requests from one pipe and answers on another."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests = requests
        self._answers = answers
        self._writing = threading.Lock()
        self._pinger = DatabasePinger()
        self._pings = ThreadPoolExecutor(PARALLEL_PINGS, thread_name_prefix="ping")
        self._links: LinkWatcher | None = None

    def run(self) -> None:
        """Serve until the input ends."""
        buffer = b""
        while True:
            timeout = _TIDY_EVERY if self._pinger.open_clients else None
            if not select.select([self._requests], [], [], timeout)[0]:
                self._pinger.close_idle()
                continue
            data = os.read(self._requests, 65536)
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._serve(line)

    def _serve(self, line: bytes) -> None:
        try:
            message = jsonrpc.decode(line)
        except jsonrpc.RpcError as error:
            self._write(jsonrpc.encode_fault(error))
            return
        params = message.params or {}
        if message.method == "ping_database":
            self._pings.submit(self._answer, message.id, self._ping, params)
        elif message.method == "watch_links":
            self._answer(message.id, self._watch_links, params)
        elif message.method == "status":
            self._answer(message.id, self._status, params)
        else:
            self._write(
                jsonrpc.encode_error(
                    message.id, jsonrpc.METHOD_NOT_FOUND, f"no method {message.method!r} here"
                )
            )

    def _answer(self, request_id: Any, method: Any, params: Mapping[str, Any]) -> None:
        try:
            line = jsonrpc.encode_result(request_id, method(params))
        except Exception as error:  # noqa: BLE001 - the reaper of this process: told and logged
            _log.error("request failed", exc_info=True)
            text = f"{type(error).__name__}: {error}"
            line = jsonrpc.encode_error(request_id, jsonrpc.INTERNAL_ERROR, text)
        self._write(line)

    def _ping(self, params: Mapping[str, Any]) -> dict[str, Any]:
        target = target_from_json(params["target"])
        return self._pinger.ping(target, float(params["timeout"])).to_json()

    def _watch_links(self, params: Mapping[str, Any]) -> dict[str, Any]:
        wanted = params.get("interfaces")
        if self._links is not None:
            return self._links.rewatch(wanted)
        self._links = LinkWatcher(wanted, self._report_links)
        return self._links.start()

    def _report_links(self, params: dict[str, Any]) -> None:
        self._write(jsonrpc.encode_request("links", params, None))

    def _status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "rss_kib": resident_kib(),
            "databases": self._pinger.open_clients,
        }

    def _write(self, line: bytes) -> None:
        view = memoryview(line)
        with self._writing:
            try:
                while view:
                    view = view[os.write(self._answers, view) :]
            except BrokenPipeError:
                os._exit(0)  # `ha` is gone


class LinkWatcher:
    """Fills a ``LinkTable`` from netlink and reports each snapshot that differs from the last.

    The netlink socket belongs to the watcher's own thread, from its opening on. ``sequence`` tells
    which of two snapshots is newer.
    """

    def __init__(self, wanted: list[str] | None, report: Callable[[dict[str, Any]], None]) -> None:
        self._table = LinkTable(wanted)
        self._report = report
        self._lock = threading.Lock()
        self._last: dict[str, Any] = {}
        self._sequence = 0
        self._route: Any = None

    def start(self) -> dict[str, Any]:
        """Start following; return the first snapshot. Raises what opening netlink raises."""
        started: Future[dict[str, Any]] = Future()
        threading.Thread(target=self._run, args=(started,), name="links", daemon=True).start()
        return started.result()

    def rewatch(self, wanted: list[str] | None) -> dict[str, Any]:
        """Take another list of interfaces; return the snapshot for it."""
        with self._lock:
            self._table.wanted = None if wanted is None else frozenset(wanted)
            self._look()
            return self._told()

    def _run(self, started: Future[dict[str, Any]]) -> None:
        try:
            from pyroute2 import IPRoute
            from pyroute2.netlink import rtnl

            self._route = IPRoute()
            self._route.bind(
                groups=rtnl.RTMGRP_LINK
                | rtnl.RTMGRP_IPV4_IFADDR
                | rtnl.RTMGRP_IPV6_IFADDR
                | rtnl.RTMGRP_IPV4_ROUTE
                | rtnl.RTMGRP_IPV6_ROUTE
            )
            # Subscribed first: what changes during the dump is told again afterwards.
            with self._lock:
                self._dump()
                self._look()
                told = self._told()
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for it
            started.set_exception(error)
            return
        started.set_result(told)
        while True:
            self._follow()

    def _follow(self) -> None:
        try:
            messages = list(self._route.get())
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                _log.error("netlink: %s", error)
                os._exit(1)  # `ha` starts another worker, with a new dump
            messages = None
        with self._lock:
            if messages is None:
                self._dump()  # the kernel had more to say than fitted: look again
            else:
                are_routes_doubtful = [self._take(message) for message in messages]
                if any(are_routes_doubtful):
                    self._dump_default_routes()
            if self._look():
                self._report(self._told())

    def _look(self) -> bool:
        """Return True when the snapshot has changed."""
        snapshot = self._table.snapshot().to_json()
        if snapshot == self._last:
            return False
        self._last = snapshot
        self._sequence += 1
        return True

    def _told(self) -> dict[str, Any]:
        return {"sequence": self._sequence, "snapshot": self._last}

    def _dump(self) -> None:
        self._table.clear()
        for message in [*self._route.get_links(), *self._route.get_addr()]:
            self._take(message)
        self._dump_default_routes()

    def _dump_default_routes(self) -> None:
        routes = (_default_route(message) for message in self._route.get_routes())
        self._table.replace_default_routes([route for route in routes if route is not None])

    def _take(self, message: Any) -> bool:
        """Take one message; return True when routes may have gone with it, which nobody tells."""
        event = message.get("event")
        if event == "RTM_NEWLINK":
            name = message.get_attr("IFLA_IFNAME") or str(message["index"])
            self._table.link(message["index"], name, message["flags"])
            return True
        if event == "RTM_DELLINK":
            # A port that leaves its bridge is told as DELLINK of family AF_BRIDGE: it stays.
            if message.get("family", 0) == 0:
                self._table.link_gone(message["index"])
            return True
        if event in ("RTM_NEWADDR", "RTM_DELADDR"):
            # On point-to-point links IFA_ADDRESS is the other side, IFA_LOCAL is ours.
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if event == "RTM_NEWADDR":
                self._table.address(message["index"], address, message["scope"])
                return False
            self._table.address_gone(message["index"], address)
            return True
        if event in ("RTM_NEWROUTE", "RTM_DELROUTE"):
            route = _default_route(message)
            if route is not None and event == "RTM_NEWROUTE":
                self._table.default_route(*route)
            elif route is not None:
                self._table.default_route_gone(*route)
        return False


def _default_route(message: Any) -> tuple[int, int, str] | None:
    """Return ``(family, interface index, gateway)`` of a usable unicast default route, or None."""
    if message["dst_len"] != 0 or message["type"] != 1:
        return None
    index = message.get_attr("RTA_OIF")
    if index is None:
        hops = message.get_attr("RTA_MULTIPATH") or []
        index = hops[0]["oif"] if hops else None
    if index is None:
        return None
    return message["family"], index, str(message.get_attr("RTA_GATEWAY") or "")


def resident_kib() -> int:
    """Return the resident memory of this process in KiB."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def main() -> None:
    """Serve the parent whose process id is the only argument."""
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for `ha`, which ends this one
    logging.basicConfig(stream=sys.stderr, format="ha-worker[%(levelname)s] %(message)s")
    logging.getLogger("pymongo").setLevel(logging.ERROR)
    answers = os.dup(1)
    os.dup2(2, 1)  # nothing that prints may break the protocol
    Worker(0, answers).run()
    os._exit(0)  # threads that wait for a database shall not hold the end up


if __name__ == "__main__":
    main()
