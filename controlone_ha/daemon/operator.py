"""What a person asks of the daemon: status, history, why, force and resume. Implements ``NodeApi``.

Every refusal is a ``RefusedError`` whose text is the reason for the person; every order is recorded
with who gave it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from controlone_ha.control.metrics import render_metrics
from controlone_ha.core.decide import decide, why_not
from controlone_ha.core.model import Peer, Snapshot, State, Verdict
from controlone_ha.core.observations import ProbeResult, Service
from controlone_ha.core.reasons import Reason, reason
from controlone_ha.errors import ControlOneError, RefusedError
from controlone_ha.probes.deep import DeepProbeError

if TYPE_CHECKING:
    from controlone_ha.daemon.view import DaemonView

Json = dict[str, Any]

PLAN_TIMEOUT = 2.0
"""Seconds that a peer has to say what it would do."""

LEAVE = "`ha leave`"
"""Who has forced a node that left on purpose: it comes back when `ha` starts again."""


class Operator:
    """The local API's view of the daemon."""

    def __init__(self, daemon: DaemonView, record: Callable[[Json], None]) -> None:
        self._daemon = daemon
        self._record = record

    async def status(self) -> Json:
        """Return the status of the node."""
        return self._daemon.status()

    async def history(
        self,
        limit: int,
        kind: str | None,
        peer: str | None,
        since: float | None,
        who: str | None,
        node: str | None,
    ) -> list[Json]:
        """Return the newest entries."""
        return await self._daemon.read_history(limit, kind, peer, since, who, node)

    async def audit(self) -> Json:
        """Verify the chains that are kept here."""
        return await self._daemon.auditing.overview()

    async def links(self) -> list[Json]:
        """Return every link."""
        return self._daemon.link_rows()

    async def live_calls(self) -> Json:
        """Return every live call this node knows."""
        calls = self._daemon.calls
        return {
            "node": self._daemon.settings.name,
            "followed": calls.has_controller,
            "calls": calls.rows(),
        }

    async def licence(self) -> Json:
        """Return the licences and whom they cover, looked at now."""
        await self._daemon.licensing.look()
        return self._daemon.licensing.overview()

    async def metrics(self) -> str:
        """Return OpenMetrics text."""
        return render_metrics(self._daemon.status())

    async def why(self, peer: str | None) -> Json:
        """Return why this node is what it is, or thinks what it thinks of ``peer``."""
        shell = self._daemon.shell
        decision = shell.node.decision
        answer: Json = {
            "node": self._daemon.settings.name,
            "peer": peer,
            "state": decision.state.value,
            "since": shell.state_since,
            "reason": decision.reason.to_json(),
        }
        if peer is not None:
            view = self._peer(peer).view
            code = "never_answered" if view.verdict is Verdict.UNKNOWN else view.verdict.value
            answer["state"] = view.verdict.value
            answer["since"] = shell.verdict_since.get(peer)
            answer["reason"] = reason(code, peer=peer, evidence=view.evidence).to_json()
        entries = await self._daemon.read_history(200)
        if peer is not None:
            entries = [entry for entry in entries if _concerns(entry, peer)]
        else:
            entries = [entry for entry in entries if entry.get("kind") in ("state", "force")]
        answer["decisions"] = entries[:10]
        return answer

    async def why_not(self, peer: str) -> Json:
        """Return everything that keeps this node from taking over from ``peer`` now."""
        self._peer(peer)
        snapshot = self._snapshot()
        obstacles = why_not(snapshot, peer)
        summary = obstacles[0] if obstacles else reason("would_take_over", peer=peer)
        return {
            "node": self._daemon.settings.name,
            "peer": peer,
            "would": not obstacles,
            "reason": summary.to_json(),
            "obstacles": [_plain(item) for item in obstacles],
        }

    async def plan(self, peer: str) -> Json:
        """Return what every node would do if ``peer`` died now, each by its own decision.

        The linked peers are asked for theirs; for one that does not answer in time its row is what
        its last report lets this node expect, and a note says so.
        """
        self._peer(peer)
        snapshot = self._snapshot()
        others = [item for item in snapshot.peers if item.name != peer and item.report is not None]
        answers = await asyncio.gather(*(self._ask_plan(item.name, peer) for item in others))
        rows = [self.own_plan(peer)]
        notes = []
        for other, answer in zip(others, answers, strict=True):
            if answer is None:
                answer = _expected_row(other, peer)
                notes.append(_plain(reason("plan_not_asked", node=other.name)))
            rows.append(answer)
        if not any(row["to"] == State.ACTIVE.value != row["state"] for row in rows):
            notes.append(_plain(reason("nobody_takes_over", peer=peer)))
        return {"peer": peer, "nodes": rows, "notes": notes}

    def own_plan(self, peer: str) -> Json:
        """Return this node's row of the plan: what it would decide, and after how long."""
        shell = self._daemon.shell
        now = shell.node.decision.state
        decision = decide(_with_failed(self._snapshot(), peer))
        to, after_s = decision.state, None
        if to is State.ACTIVE and now is State.STANDBY:
            after_s = 0.0
        elif decision.reason.code == "waiting_rank":
            ahead = str(decision.reason.params.get("better", "")).count(",") + 1
            after_s = ahead * self._daemon.slot
        why = decision.reason
        if now is to is State.STANDBY and after_s is None:
            why = next(iter(why_not(_with_failed(self._snapshot(), peer), peer)), why)
        row = _row(self._daemon.settings.name, now, to, why)
        return {**row, "after_s": after_s}

    async def _ask_plan(self, node: str, peer: str) -> Json | None:
        link = self._daemon.links.link(node)
        if link is None:
            return None
        try:
            answer = await link.request("plan", {"peer": peer}, timeout=PLAN_TIMEOUT)
        except (ControlOneError, TimeoutError):
            return None
        return (
            answer if isinstance(answer, dict) and {"node", "state", "to"} <= set(answer) else None
        )

    async def check(self) -> list[Json]:
        """Return everything that is wrong with this node, each with its remedy."""
        return await self._daemon.check()

    async def force(self, state: str, by: str) -> Json:
        """Force this node ``active`` or ``passive`` until ``resume``."""
        node = self._daemon.shell.node
        refusal = node.refusal_of_force(state)
        if refusal is not None:
            self._record({"kind": "force", "to": state, "by": by, "refused": refusal})
            raise RefusedError(refusal)
        before = node.remembered.forced
        node.force(state, by)
        self._ordered("force", before, state, by, reason(f"forced_{state}", by=by))
        return await self._outcome()

    async def leave(self, by: str) -> Json:
        """Hand over before `ha` or the system is stopped on purpose: passive until `ha` starts the
        next time. Nothing changes where nobody could take over, or a person has forced a state.
        """
        node = self._daemon.shell.node
        is_away = not node.decision.state.runs_conference
        will_leave = not is_away and not node.remembered.forced and self._daemon.has_taker()
        if will_leave:
            node.force("passive", LEAVE)
            self._ordered("force", "", "passive", by, reason("forced_passive", by=LEAVE))
        return {**await self._outcome(), "leaves": is_away or will_leave}

    async def resume(self, by: str) -> Json:
        """End a forced or paused state."""
        node = self._daemon.shell.node
        before = node.remembered.forced or ("paused" if node.remembered.paused_by else "")
        if not node.resume():
            raise RefusedError("nothing to resume: this node is neither forced nor paused")
        self._daemon.paused = None
        self._ordered("force", before, "", by, reason("resumed", by=by))
        return await self._outcome()

    async def pause(self, by: str, reason: str) -> Json:
        """No automatic change of state until ``resume``."""
        from controlone_ha.core.reasons import reason as make

        self._daemon.shell.node.pause(by)
        self._daemon.paused = {"since": time.time(), "by": by, "reason": reason}
        self._ordered("pause", "", "paused", by, make("paused", by=by))
        answer = await self._outcome()
        answer["continues"] = [_plain(make("pause_continues"))]
        return answer

    async def probe(self, peer: str) -> Json:
        """Probe once, now, the services that ``peer`` is expected to run."""
        report = self._peer(peer).report
        results = await self._daemon.probe_now(peer)
        rows = [_probe_row(item.service.value, item) for item in results]
        if report is not None and not report.state.runs_conference:
            rows = [row for row in rows if row["service"] != Service.CONFERENCE.value]
        else:
            rows.append(await self._call_row(peer))
        return {"peer": peer, "probes": rows}

    async def _call_row(self, peer: str) -> Json:
        """A real call: what OPTIONS alone does not prove."""
        try:
            return _probe_row("call", await self._daemon.call_now(peer))
        except DeepProbeError as error:
            return {"service": "call", "outcome": "unknown", "detail": str(error), "rtt_ms": None}

    async def sync(self, item: str | None) -> Json:
        """Begin a full synchronisation with every peer."""
        return self._daemon.sync.runs.begin(item)

    async def sync_progress(self, run: int) -> Json:
        """Return how far a full synchronisation is."""
        return self._daemon.sync.runs.progress(run)

    async def diff(self, peer: str, item: str | None) -> Json:
        """Return what is not the same on a peer."""
        self._peer(peer)
        try:
            return {"peer": peer, "files": await self._daemon.sync.diff(peer, item)}
        except TimeoutError:
            raise RefusedError(f"{peer} did not answer in time") from None

    async def conflicts(self, everything: bool) -> list[Json]:
        """Return the conflict copies of this node."""
        engine = self._daemon.sync
        copies = await engine.work(lambda: engine.replica.losers.list(everything=everything))
        return [copy.to_json() for copy in copies]

    async def conflict_diff(self, id: str) -> Json:
        """Return how a conflict copy differs from the file as it is."""
        engine = self._daemon.sync
        return await engine.work(engine.replica.losers.diff, id)

    async def restore(self, id: str, by: str) -> Json:
        """Put a conflict copy back, as an edit of this node."""
        answer = await self._daemon.sync.restore(id)
        told = f"{answer['path']}: the version of {answer['node']} restored by {by}"
        self._record({"kind": "sync", "item": answer["item"], "state": "restored", "detail": told})
        return answer

    async def database(self, order: str, peer: str | None, limit: int) -> Any:
        """Give an order to the synchronisation of the database."""
        item = self._daemon.database
        if order in ("diff", "forget"):
            if peer is None:
                raise RefusedError(f"database {order}: which peer?")
            return await item.ask(order, peer=peer)
        if order == "conflicts":
            return await item.ask(order, limit=limit)
        if order == "status":
            return await item.told()
        return await item.ask(order)

    async def reload(self) -> Json:
        """Read the configuration again; a bad one is refused and the old one kept."""
        return await self._daemon.reload()

    async def trust_changed(self) -> Json:
        """Pins were added or removed by the command."""
        return await self._daemon.trust_changed()

    def _peer(self, name: str) -> Peer:
        snapshot = self._snapshot()
        peer = snapshot.peer(name)
        if peer is None:
            known = ", ".join(item.name for item in snapshot.peers) or "none"
            raise RefusedError(f"{name!r} is no peer of this node; its peers: {known}")
        return peer

    def _snapshot(self) -> Snapshot:
        return self._daemon.shell.node.snapshot(self._daemon.shell.now)

    def _ordered(self, kind: str, before: str, after: str, by: str, why: Reason) -> None:
        self._record({"kind": kind, "from": before, "to": after, "by": by, "reason": why.to_json()})
        self._daemon.shell.decide_now()

    async def _outcome(self) -> Json:
        node = self._daemon.shell.node
        return {
            "state": node.decision.state.value,
            "reason": node.decision.reason.to_json(),
            "forced": node.remembered.forced or None,
            "paused": self._daemon.paused,
        }


def _probe_row(service: str, result: ProbeResult) -> Json:
    return {
        "service": service,
        "outcome": result.outcome.value,
        "detail": result.detail,
        "rtt_ms": result.rtt_ms,
    }


def _plain(item: Reason) -> Json:
    return {"code": item.code, "text": item.text(), "params": dict(item.params)}


def _concerns(entry: Json, peer: str) -> bool:
    if entry.get("peer") == peer:
        return True
    params = (entry.get("reason") or {}).get("params") or {}
    return any(
        peer in str(params.get(key, "")).split(", ") for key in ("peer", "peers", "node", "better")
    )


def _with_failed(snapshot: Snapshot, name: str) -> Snapshot:
    """Return ``snapshot`` as it would be if ``name`` had just died."""
    peers = tuple(
        replace(
            peer,
            view=replace(peer.view, verdict=Verdict.FAILED, since_at=snapshot.now),
            is_linked=False,
            serving_at=None,
        )
        if peer.name == name
        else peer
        for peer in snapshot.peers
    )
    return replace(snapshot, peers=peers)


def _row(node: str, state: State, to: State, why: Reason) -> Json:
    return {
        "node": node,
        "state": state.value,
        "to": to.value,
        "after_s": None,
        "reason": why.to_json(),
    }


def _expected_row(peer: Peer, failed: str) -> Json:
    """Return what a node that was not asked is expected to do, by its last report."""
    report = peer.report
    assert report is not None
    why = report.reason
    if report.state is State.STANDBY and failed not in report.covers:
        why = reason("not_monitored", peer=failed)
    elif report.state is State.STANDBY and report.ineligible is not None:
        why = reason("not_eligible", peer=failed, why=report.ineligible.text())
    return _row(peer.name, report.state, report.state, why)
