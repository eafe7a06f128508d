"""A daemon for tests of the control room: the real LocalApi over a real socket, a small NodeApi.

It runs its event loop in a thread, so that commands can be run as processes beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from controlone_ha.control.api import LocalApi
from controlone_ha.control.metrics import render_metrics
from controlone_ha.errors import RefusedError

ENTRY = Path(__file__).resolve().parents[2] / "files" / "usr" / "sbin" / "ha"
DATA = Path(__file__).resolve().parents[1] / "data" / "control"
PEERS = ("m1", "m2", "s2", "p1")
REASON = {
    "code": "peer_failed",
    "text": "m1 failed: its services refuse and its `ha` does not answer",
    "params": {"peer": "m1"},
    "evidence": [
        {"kind": "probe", "text": "port 7551 refused", "path": "direct", "age": 0.2},
        {"kind": "peer", "text": "no sign of life", "path": "via s2", "age": 1.0},
    ],
}


def sample_status() -> dict[str, Any]:
    """Return the status that the tests of this room share."""
    status: dict[str, Any] = json.loads((DATA / "status.json").read_text())
    return status


def entry(time: float, **fields: Any) -> dict[str, Any]:
    """Return a history entry of node s1."""
    return {"time": time, "node": "s1", "kind": "state", "reason": REASON} | fields


CONFLICT = {
    "id": "0a1b2c3d", "path": "/etc/config/server", "item": "config", "why": "conflict",
    "size": 90, "edited": 1_750_000_000.0, "node": "s1", "winner_edited": 1_750_000_001.0,
    "winner_node": "m1", "kept": 1_750_000_002.0,
}  # fmt: skip


class SmallNode:
    """A NodeApi that holds just enough state to be asked and ordered."""

    def __init__(self) -> None:
        self.state = sample_status()
        self.entries = [
            entry(1_750_000_000.0 - index, peer=PEERS[index % 4], **{"from": "a", "to": "b"})
            for index in range(30)
        ]
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.findings = [
            {
                "severity": "error",
                "area": "clock",
                "code": "clock_skew",
                "text": "the clock of s2 differs by 12 s",
                "remedy": "set up ntpd on both nodes",
            }
        ]
        self.release = asyncio.Event()

    def _peer(self, name: str) -> str:
        if name not in PEERS:
            raise RefusedError(f"{name} is not a peer of this node; peers: {', '.join(PEERS)}")
        return name

    def _outcome(self, state: str) -> dict[str, Any]:
        self.state["state"] = state
        return {
            "state": state,
            "reason": {"code": f"forced_{state}", "text": "forced", "params": {"by": "ana"}},
            "forced": self.state["forced"],
            "paused": self.state["paused"],
        }

    async def status(self) -> dict[str, Any]:
        return self.state

    async def audit(self) -> dict[str, Any]:
        row = {"node": "s1", "what": "own", "chain": "c0ffee00", "first": 1, "last": 9, "lines": 8}
        gap = "line 7 is missing, between line 6 and line 8"
        return {
            "node": "s1",
            "chains": [{**row, "problems": [gap]}],
            "problems": [],
            "held_by": {"m1": 9},
        }

    async def history(
        self,
        limit: int,
        kind: str | None,
        peer: str | None,
        since: float | None,
        who: str | None,
        node: str | None,
    ) -> list[dict[str, Any]]:
        asked = {"limit": limit, "kind": kind, "peer": peer, "since": since}
        asked |= {"who": who, "node": node} if who or node else {}
        self.calls.append(("history", asked))
        return [item for item in self.entries if peer in (None, item["peer"])][:limit]

    async def why(self, peer: str | None) -> dict[str, Any]:
        return {
            "node": "s1",
            "peer": self._peer(peer) if peer else None,
            "state": "failed" if peer else "active",
            "since": 1_750_000_000.0,
            "reason": REASON,
            "decisions": self.entries[:2],
        }

    async def why_not(self, peer: str) -> dict[str, Any]:
        return {
            "node": "s1",
            "peer": self._peer(peer),
            "would": False,
            "reason": None,
            "obstacles": [{"code": "own_paused", "text": "it is paused", "params": {}}],
        }

    async def plan(self, peer: str) -> dict[str, Any]:
        return {
            "peer": self._peer(peer),
            "nodes": [
                {
                    "node": "s1",
                    "state": "standby",
                    "to": "active",
                    "after_s": 0.4,
                    "reason": REASON,
                },
                {"node": "p1", "state": "passive", "to": "passive", "reason": None},
            ],
            "notes": [{"code": "x", "text": "3 calls are protected", "params": {}}],
        }

    async def check(self) -> list[dict[str, Any]]:
        return self.findings

    async def force(self, state: str, by: str) -> dict[str, Any]:
        self.calls.append(("force", {"state": state, "by": by}))
        self.state["forced"] = state
        return self._outcome(state)

    async def leave(self, by: str) -> dict[str, Any]:
        return {"leaves": True, "state": "passive"}

    async def resume(self, by: str) -> dict[str, Any]:
        self.calls.append(("resume", {"by": by}))
        self.state["forced"] = self.state["paused"] = None
        return self._outcome("standby")

    async def pause(self, by: str, reason: str) -> dict[str, Any]:
        self.calls.append(("pause", {"by": by, "reason": reason}))
        self.state["paused"] = {"since": 1_750_000_000.0, "by": by, "reason": reason}
        continues = [{"code": "sync", "text": "synchronisation goes on"}]
        return {**self._outcome("active"), "continues": continues}

    async def probe(self, peer: str) -> dict[str, Any]:
        if peer == "m2":
            await self.release.wait()
        outcome = "refused" if peer == "m1" else "answered"
        return {
            "peer": self._peer(peer),
            "probes": [{"service": "server", "outcome": outcome, "detail": "", "rtt_ms": 1.5}],
        }

    async def links(self) -> list[dict[str, Any]]:
        return [
            {"peer": peer["name"], "address": peer["address"], **peer["link"]}
            for peer in self.state["peers"]
        ]

    async def live_calls(self) -> dict[str, Any]:
        call = {"id": "m1-ab", "owner": "m1", "state": "up", "queue": "100", "created": 1.0}
        legs = [{"party": "5511999", "state": "confirmed"}, {"party": "desk-4", "state": "ended"}]
        row = {**call, "legs": legs, "recording": None, "here": False, "protected_by": []}
        return {"node": "n1", "followed": True, "calls": [row]}

    async def sync(self, item: str | None) -> dict[str, Any]:
        return {**await self.sync_progress(1), "items": [item or "config"]}

    async def sync_progress(self, run: int) -> dict[str, Any]:
        row = {"peer": "n2", "done": True, "error": "", "files": 2, "files_total": 2}
        peers = [{**row, "bytes": 2048, "bytes_total": 2048}]
        head = {"run": run, "done": True, "scanning": False, "items": ["config"], "seconds": 0.25}
        return {**head, "peers": peers}

    async def diff(self, peer: str, item: str | None) -> dict[str, Any]:
        side = {"time": 1.0, "node": "n2", "size": 90, "checksum": "0123456789ab", "present": True}
        row = {"item": item or "config", "path": "/etc/config/server", "what": "newer_there"}
        return {
            "peer": peer,
            "files": [{**row, "here": None, "there": side, "lines": ["-option port '1'"]}],
        }

    async def conflicts(self, everything: bool) -> list[dict[str, Any]]:
        return [CONFLICT, {**CONFLICT, "why": "replaced"}] if everything else [CONFLICT]

    async def conflict_diff(self, id: str) -> dict[str, Any]:
        return {**CONFLICT, "lines": ["@@ -1 +1 @@", "-\toption port '1'", "+\toption port '2'"]}

    async def restore(self, id: str, by: str) -> dict[str, Any]:
        self.calls.append(("restore", {"id": id, "by": by}))
        return CONFLICT

    async def database(self, order: str, peer: str | None, limit: int) -> Any:
        return {"order": order, "peer": peer, "limit": limit}

    async def licence(self) -> dict[str, Any]:
        return {
            "masters": ["m1", "m2"],
            "unlicensed": ["m2"],
            "valid": 1,
            "directory": "/etc/controlone.d/licences",
            "licences": [
                {
                    "file": "A-1.licence",
                    "state": "valid",
                    "detail": "",
                    "serial": "A-1",
                    "customer": "City",
                    "expires": "2030-01-31",
                },
                {
                    "file": "x.licence",
                    "state": "forged",
                    "detail": "the signature is not the vendor's",
                    "serial": None,
                    "customer": None,
                    "expires": None,
                },
            ],
        }

    async def metrics(self) -> str:
        return render_metrics(self.state)

    async def reload(self) -> dict[str, Any]:
        raise RefusedError("ha.default.role: got 'mestre', expected master, slave or passive")

    async def trust_changed(self) -> dict[str, Any]:
        self.calls.append(("trust_changed", {}))
        return {}


class Daemon:
    """Runs a LocalApi in a thread until ``stop``."""

    def __init__(self, run_dir: Path) -> None:
        self.socket = run_dir / "ha.sock"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.node = self.run(self._make_node())
        self.api = LocalApi(path=self.socket, node=self.node)
        self.run(self.api.start())

    async def _make_node(self) -> SmallNode:
        return SmallNode()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the daemon's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def publish(self, item: dict[str, Any]) -> None:
        """Publish a transition, in the daemon's loop."""
        self._loop.call_soon_threadsafe(self.api.publish, item)

    def stop(self) -> None:
        """Stop serving and end the thread."""
        self.run(self.api.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Node:
    """Directories of a node, and the command run in it."""

    def __init__(self, root: Path) -> None:
        self.run_dir = root / "run"
        self.state_dir = root / "state"
        self.run_dir.mkdir()
        self.state_dir.mkdir(mode=0o700)
        self.environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "LOGNAME": "ana",
            "CONTROLONE_RUN_DIR": str(self.run_dir),
            "CONTROLONE_STATE_DIR": str(self.state_dir),
            "CONTROLONE_PYTHON": sys.executable,
        }

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start `ha` with these words, as the shell entry does."""
        return subprocess.Popen(
            ["/bin/sh", str(ENTRY), *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def ha(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `ha` to its end."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=60)
            return subprocess.CompletedProcess(words, process.returncode, out, err)
