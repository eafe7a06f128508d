"""The rules of DESIGN, as functions that raise when one does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlone_ha.core.effects import PeerTransition
from controlone_ha.core.model import Decision, Ground, Role, State, Verdict, Yielding
from controlone_ha.core.observations import Service

if TYPE_CHECKING:
    from controlone_ha.core.model import Report
    from tests.simulation.calls import SimCall
    from tests.simulation.ledger import Facts, Ledger
    from tests.simulation.shell import SimNode

SILENCE = ("peer_silent", "peer_silent_two_nodes", "site_silent_no_active")
ACTIVATIONS = (
    *SILENCE,
    "peer_failed",
    "peer_service_failed",
    "peer_yielded",
    "peer_forced_passive",
)
TOLERANCE = 0.2
"""Share by which clocks of nodes differ at most in the simulator, both ways together."""
DISABLED_ALONE = 12.0
"""Seconds after which a disabled node must serve again when nobody serves: to notice that a link is
silent (10 s at most, by its timeout) and to decide."""
ORDER_DONE = 2.0
"""Seconds until services are what the decision says."""


# --- at every step ------------------------------------------------------------------------------


def passive_runs_nothing(ledger: Ledger, node: SimNode, facts: Facts, after: Decision) -> None:
    """Never 1: a passive or forced-passive node never runs Console Server or Conference Server."""
    if node.is_passive and (after.console_enabled or after.conference_running):
        raise ledger.broken("passive_runs_nothing", node, f"decided {after.state.value}")


def orders_survive(ledger: Ledger, node: SimNode, facts: Facts, after: Decision) -> None:
    """Forced and paused states survive restarts."""
    assert node.core is not None
    kept, name = node.core.remembered, node.name
    if kept.forced != ledger.forced[name] or bool(kept.paused_by) != ledger.paused[name]:
        text = (
            f"remembers forced {kept.forced!r} paused {kept.paused_by!r}, was told"
            f" {ledger.forced[name]!r} {ledger.paused[name]!r}"
        )
        raise ledger.broken("orders_survive", node, text)


def paused_stays(ledger: Ledger, node: SimNode, facts: Facts, after: Decision) -> None:
    """A paused node makes no automatic transition."""
    if not ledger.paused[node.name] or ledger.forced[node.name] or node.is_passive:
        facts.state_when_paused = None
    elif facts.state_when_paused is None:
        facts.state_when_paused = after.state
    elif after.state is not facts.state_when_paused:
        text = f"{facts.state_when_paused.value} -> {after.state.value}: {after.reason.text()}"
        raise ledger.broken("paused_stays", node, text)


# --- when the state changes ---------------------------------------------------------------------


def _is_activation(before: Decision, after: Decision) -> bool:
    return (
        before.state is State.STANDBY
        and after.state is State.ACTIVE
        and after.reason.code in ACTIVATIONS
    )


def eligible_only(
    ledger: Ledger, node: SimNode, facts: Facts, before: Decision, after: Decision
) -> None:
    """Only an eligible node takes over: not paused, passive, abnormal, unlicensed, late or cut."""
    core = node.core
    assert core is not None
    if not _is_activation(before, after):
        return
    problems = {
        "paused": ledger.paused[node.name],
        "passive": node.is_passive,
        "without network": "unplugged" in facts.told,
        "abnormal": "abnormal" in facts.told,
        "unlicensed": not core.settings.is_licensed,
        "late": node.is_known_late(core.settings.timing.suspect_after),
    }
    found = [name for name, is_so in problems.items() if is_so]
    if found:
        raise ledger.broken("eligible_only", node, f"took over although {', '.join(found)}")


def silence_needs_a_witness(
    ledger: Ledger, node: SimNode, facts: Facts, before: Decision, after: Decision
) -> None:
    """Silence alone never suffices where there is a third node, and a sighting vetoes."""
    core = node.core
    assert core is not None
    if not _is_activation(before, after) or after.reason.code not in SILENCE:
        return
    if len(core.trackers) < 2:
        return
    failed, timing, now = str(after.reason.params["peer"]), core.settings.timing, ledger.world.now
    own_sign = facts.heard_at.get(failed, -1e9)
    lasting = max(3.0, 3 * timing.suspect_after) * (1 + TOLERANCE)
    denials, vetoes = [], []
    for witness, answer in facts.witnesses[failed].items():
        if witness not in facts.linked_at or answer.at < own_sign or now - answer.at > lasting:
            continue
        seen_at = answer.at - answer.age
        # One that wakes from a freeze reads what had come long before, and takes it for fresh.
        has_just_woken = ledger.facts[witness].went_on_at > own_sign
        if (
            witness in core.trackers
            and not has_just_woken
            and seen_at > own_sign + timing.suspect_after * (1 + TOLERANCE)
            and now - seen_at < timing.fresh * (1 - TOLERANCE)
        ):
            vetoes.append(witness)
        elif min(answer.age, answer.true_age) > timing.heartbeat * (1 - TOLERANCE):
            denials.append(witness)
    if vetoes:
        raise ledger.broken(
            "sighting_vetoes", node, f"took over from {failed}, which {vetoes} sees"
        )
    if not denials:
        raise ledger.broken(
            "silence_needs_a_witness", node, f"took over from {failed}: {after.reason.text()}"
        )


def isolated_judges_nobody(
    ledger: Ledger, node: SimNode, facts: Facts, before: Decision, after: Decision
) -> None:
    """A node that reaches nobody takes over from nobody (two-node clusters apart)."""
    core = node.core
    assert core is not None
    if not _is_activation(before, after) or after.reason.code not in SILENCE:
        return
    if len(core.trackers) < 2:
        return
    timing, now = core.settings.timing, ledger.world.now
    stretch = 10.0 if node.lag else 1.0 + TOLERANCE
    patience = timing.suspect_after * stretch + timing.fresh
    failed = after.reason.params["peer"]
    signs = [
        at
        for signs in (facts.heard_at, facts.answered_at)
        for peer, at in signs.items()
        if peer != failed and peer in core.trackers
    ]
    if not any(now - at <= patience for at in signs):
        raise ledger.broken("isolated_judges_nobody", node, after.reason.text())


def rank_gives_order(
    ledger: Ledger, node: SimNode, facts: Facts, before: Decision, after: Decision
) -> None:
    """Rank k waits k slots after the need arose."""
    core = node.core
    assert core is not None
    if not _is_activation(before, after):
        return
    failed = str(after.reason.params["peer"])
    own_key = (-node.spec.priority, 0 if node.spec.role is Role.MASTER else 1, node.name)
    now, timing = ledger.world.now, core.settings.timing
    better = [
        report.node
        for peer, report in facts.reports.items()
        if peer in facts.linked_at
        and peer in core.trackers
        and peer != failed
        and now - facts.heard_at[peer] < timing.suspect_after * (1 - TOLERANCE)
        and report.state is State.STANDBY
        and report.ineligible is None
        and failed in report.covers
        and (-report.priority, 0 if report.role is Role.MASTER else 1, report.node) < own_key
    ]
    if not better:
        return
    needed_at = facts.troubled_at.get(failed, -1e9)
    if after.reason.code in ("peer_yielded", "peer_forced_passive"):
        needed_at = facts.out_at.get(failed, -1e9)
    waited = now - needed_at
    if waited < len(better) * core.settings.rules.slot * (1 - TOLERANCE):
        text = f"took over from {failed} after {waited:.3f} s although {better} rank before it"
        raise ledger.broken("rank_gives_order", node, text)


def yields_to_an_offer(
    ledger: Ledger, node: SimNode, facts: Facts, before: Decision, after: Decision
) -> None:
    """A node disables its Console Server only when a linked peer has said that it can serve, and
    while no linked peer is out of service itself.
    """
    if facts.first_step or before.yielding is Yielding.YIELDED:
        return
    if after.yielding is not Yielding.YIELDED:
        return
    core = node.core
    assert core is not None

    def said(patience: float) -> dict[str, Report]:
        """What those have said who were heard so lately."""
        return {
            peer: report
            for peer, report in facts.reports.items()
            if peer in facts.linked_at and ledger.world.now - facts.heard_at[peer] < patience
        }

    patience = core.settings.timing.suspect_after
    if not any(node.name in item.offers for item in said(patience * (1 + TOLERANCE)).values()):
        raise ledger.broken("yields_to_an_offer", node, "nobody had offered")
    certain = said(patience * (1 - TOLERANCE))
    out = [peer for peer, report in certain.items() if report.yielding is Yielding.YIELDED]
    if out:
        raise ledger.broken("one_at_a_time", node, f"{out} had said that they are out of service")


def one_at_a_time(
    ledger: Ledger, node: SimNode, facts: Facts, before: Decision, after: Decision
) -> None:
    """Of nodes that are linked with each other all along, one is out of service at a time."""
    if facts.first_step or before.yielding is Yielding.YIELDED:
        return
    if after.yielding is not Yielding.YIELDED:
        return
    assert node.core is not None
    patience = node.core.settings.timing.suspect_after * (1 - TOLERANCE)
    for peer, linked_at in facts.linked_at.items():
        other, theirs = ledger.nodes[peer], ledger.facts[peer]
        if other.core is None or node.name not in theirs.linked_at:
            continue
        if peer not in node.spec.peers or node.name not in other.spec.peers:
            continue
        settled = max(linked_at, theirs.linked_at[node.name]) + 1.0
        if (
            other.core.decision.yielding is Yielding.YIELDED
            and node.links.get(peer) is other.links.get(node.name)
            and ledger.world.now > settled
            and ledger.world.network.is_open_both_ways(node.name, peer)
            and not other.is_still
            and ledger.world.now - facts.heard_at[peer] < patience
            and ledger.world.now - theirs.heard_at[node.name] < patience
        ):
            raise ledger.broken("one_at_a_time", node, f"{peer} is out of service, too")


def rereads_first(
    ledger: Ledger, node: SimNode, facts: Facts, before: Decision, after: Decision
) -> None:
    """After standing still a node hears those it is linked with before it acts, or waits."""
    core = node.core
    assert core is not None
    if after.state is before.state or node.is_passive or ledger.forced[node.name]:
        return
    timing = core.settings.timing
    if ledger.world.now >= facts.went_on_at + timing.fresh * (1 - TOLERANCE):
        return
    if before.state in (State.STARTING, State.PASSIVE):
        return
    if (before.state, after.state) == (State.ACTIVE, State.DEGRADED):
        return  # it only says of itself that something is wrong, and serves on
    unheard = [
        peer
        for peer in facts.linked_at
        if peer in core.trackers
        and facts.reported_at.get(peer, -1e9) < facts.went_on_at
        and facts.silences[peer] < 2  # else found silent since
    ]
    if unheard:
        text = f"{before.state.value} -> {after.state.value} before {unheard} were heard again"
        raise ledger.broken("rereads_first", node, text)


def adopts_what_runs(
    ledger: Ledger, node: SimNode, facts: Facts, before: Decision, after: Decision
) -> None:
    """Never 2: `ha` that was killed goes on with the services that went on without it."""
    if not facts.first_step or node.is_passive:
        return
    was_serving = node.remembered.state.runs_conference
    is_running = node.services[Service.CONFERENCE].is_running
    if was_serving and is_running and not after.conference_running:
        text = f"was {node.remembered.state.value}, decided {after.state.value} at its start"
        raise ledger.broken("adopts_what_runs", node, text)


def counts(ledger: Ledger, node: SimNode, facts: Facts, before: Decision, after: Decision) -> None:
    """Count activations, and those for a node that served all the time."""
    if _is_activation(before, after):
        ledger.tally.activations += 1
        failed = ledger.nodes[str(after.reason.params["peer"])]
        ledger.tally.needless += failed.is_serving


# --- when a verdict changes ---------------------------------------------------------------------


def failed_needs_a_refusal(
    ledger: Ledger, node: SimNode, facts: Facts, effect: PeerTransition
) -> None:
    """Only what its machine refused is said to have failed; a cut looks otherwise."""
    peer, verdict = effect.view.peer, effect.view.verdict
    if effect.before in (Verdict.ALIVE, Verdict.NO_DAEMON, Verdict.UNKNOWN):
        facts.troubled_at[peer] = ledger.world.now
    if verdict is Verdict.SUSPECT:
        ledger.tally.suspicions += 1
    refused_at = facts.refused_at.get(peer, -1e9)
    if verdict is Verdict.FAILED and refused_at < facts.heard_at.get(peer, -1e9):
        raise ledger.broken("failed_needs_a_refusal", node, f"{peer} refused nothing")
    if verdict in (Verdict.FAILED, Verdict.SILENT) and ledger.nodes[peer].is_serving:
        ledger.tally.false_verdicts += 1


# --- every second -------------------------------------------------------------------------------


def disabled_only_while_replaced(ledger: Ledger, node: SimNode) -> None:
    """A disabled node serves again when nobody else does."""
    core = node.core
    is_disabled = (
        core is not None
        and core.decision.state is State.DISABLED
        and not node.is_still
        and not ledger.paused[node.name]
    )
    is_served = any(
        other.is_serving and (node.name in other.spec.peers or other.name in node.spec.peers)
        for other in ledger.nodes.values()
        if other is not node
    )
    if not is_disabled or is_served:
        ledger.unserved_since.pop(node.name, None)
        return
    since = ledger.unserved_since.setdefault(node.name, ledger.world.now)
    if ledger.world.now - since > DISABLED_ALONE + node.lag * 10:
        raise ledger.broken("disabled_only_while_replaced", node, "nobody serves")


def passive_machine_runs_nothing(ledger: Ledger, node: SimNode) -> None:
    """Never 1, in truth: role passive never runs a service."""
    if node.spec.role is Role.PASSIVE:
        running = [str(name) for name, item in node.services.items() if item.is_running]
        if running:
            raise ledger.broken("passive_machine_runs_nothing", node, f"{running} run")


# --- when a call is taken -----------------------------------------------------------------------


def never_steals(
    ledger: Ledger, node: SimNode, call: SimCall, ground: Ground, is_served: bool
) -> None:
    """Never 6: no call is taken from a server that still serves it and reaches its parties.

    Nobody can know of one that has lost every other node and none of its parties.
    """
    has_others = any(
        other.is_up
        and not other.is_dark
        and ledger.world.network.is_open_both_ways(call.anchor, name)
        for name, other in ledger.nodes.items()
        if name != call.anchor
    )
    if is_served and has_others and ground is not Ground.RELEASED:
        text = f"took {call.id} on ground {ground.value}, which {call.anchor} still served"
        raise ledger.broken("never_steals", node, text)


def passive_takes_nothing(
    ledger: Ledger, node: SimNode, call: SimCall, ground: Ground, is_served: bool
) -> None:
    """Never 1: a passive or forced-passive node anchors no call."""
    if node.is_passive:
        raise ledger.broken("passive_takes_nothing", node, f"took {call.id}")


ON_STEP = [passive_runs_nothing, orders_survive, paused_stays]
ON_CHANGE = [
    eligible_only,
    silence_needs_a_witness,
    isolated_judges_nobody,
    rank_gives_order,
    yields_to_an_offer,
    one_at_a_time,
    rereads_first,
    adopts_what_runs,
    counts,
]
ON_VERDICT = [failed_needs_a_refusal]
ON_SECOND = [disabled_only_while_replaced, passive_machine_runs_nothing]
ON_TAKE = [never_steals, passive_takes_nothing]
