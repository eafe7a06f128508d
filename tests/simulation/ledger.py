"""What an observer who sees every node writes down, and the rules it checks at every step.

The rules are written from the documents (DESIGN "Never" and "Decision rules"), in terms of what was
delivered to a node and of the truth, not by calling the code under test. Each rule is a function of
``rules``; this module keeps the facts they need. All times are true time.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from controlone_ha.core.effects import Effect, PeerTransition
from controlone_ha.core.model import Decision, Ground, Report, State, Yielding
from controlone_ha.core.observations import Outcome, ProbeResult

if TYPE_CHECKING:
    from tests.simulation.calls import SimCall
    from tests.simulation.shell import SimNode
    from tests.simulation.world import World


class RuleBrokenError(AssertionError):
    """A rule of the documents does not hold. ``rule`` is its name in ``rules``."""

    def __init__(self, rule: str, node: str, at: float, text: str) -> None:
        super().__init__(f"{rule}: {node} at {at:.3f} s: {text}")
        self.rule = rule
        self.node = node
        self.at = at
        self.text = text

    def __reduce__(self) -> tuple[type[RuleBrokenError], tuple[str, str, float, str]]:
        return type(self), (self.rule, self.node, self.at, self.text)


@dataclass(kw_only=True)
class Witness:
    """What one node answered about another: when it arrived, and the age it told."""

    at: float
    age: float
    true_age: float


@dataclass(kw_only=True)
class Facts:
    """What was delivered to one node in its present life."""

    started_at: float
    first_step: bool = True
    heard_at: dict[str, float] = field(default_factory=dict)
    answered_at: dict[str, float] = field(default_factory=dict)
    refused_at: dict[str, float] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    reported_at: dict[str, float] = field(default_factory=dict)
    silences: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    out_at: dict[str, float] = field(default_factory=dict)
    linked_at: dict[str, float] = field(default_factory=dict)
    witnesses: defaultdict[str, dict[str, Witness]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    troubled_at: dict[str, float] = field(default_factory=dict)
    went_on_at: float = -1e9
    told: set[str] = field(default_factory=set)
    state_when_paused: State | None = None


@dataclass(kw_only=True)
class Tally:
    """Counts of a run, for people and figures."""

    activations: int = 0
    needless: int = 0
    suspicions: int = 0
    false_verdicts: int = 0
    steps: int = 0
    taken: int = 0

    def add(self, other: Tally) -> None:
        """Add the counts of another run."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class Ledger:
    """The observer of one run."""

    def __init__(self, world: World, nodes: dict[str, SimNode]) -> None:
        from tests.simulation import rules

        self.world = world
        self.nodes = nodes
        self.forced: dict[str, str] = dict.fromkeys(nodes, "")
        self.paused: dict[str, bool] = dict.fromkeys(nodes, False)
        self.facts = {name: Facts(started_at=0.0) for name in nodes}
        self.unserved_since: dict[str, float] = {}
        self.changed_at: dict[str, float] = {}
        self.tally = Tally()
        self._on_step = rules.ON_STEP
        self._on_change = rules.ON_CHANGE
        self._on_verdict = rules.ON_VERDICT
        self._on_second = rules.ON_SECOND
        self._on_take = rules.ON_TAKE

    # --- what happened --------------------------------------------------------------------------

    def started(self, node: SimNode) -> None:
        """`ha` has started with what it remembered."""
        facts = self.facts[node.name] = Facts(started_at=self.world.now)
        if node.abnormalities:
            facts.told.add("abnormal")
        if not node.has_network:
            facts.told.add("unplugged")
        self.world.note(f"{node.name}: `ha` starts, life {node.life}")

    def linked(self, node: SimNode, peer: str) -> None:
        """A link of ``node`` opened."""
        facts = self.facts[node.name]
        facts.linked_at[peer] = facts.heard_at[peer] = self.world.now
        facts.reports.pop(peer, None)

    def unlinked(self, node: SimNode, peer: str) -> None:
        """A link of ``node`` ended."""
        facts = self.facts[node.name]
        facts.linked_at.pop(peer, None)
        # The end of a link that had fallen silent before is no new trouble.
        if facts.heard_at.get(peer, -1e9) > facts.troubled_at.get(peer, -1e9):
            facts.troubled_at[peer] = self.world.now

    def heard(self, node: SimNode, peer: str) -> None:
        """A frame was read."""
        facts = self.facts[node.name]
        facts.heard_at[peer] = self.world.now
        facts.silences[peer] = 0

    def reported(self, node: SimNode, report: Report) -> None:
        """A report was read."""
        facts = self.facts[node.name]
        facts.reports[report.node] = report
        facts.reported_at[report.node] = self.world.now
        if report.yielding is Yielding.YIELDED or report.state is State.PASSIVE:
            facts.out_at.setdefault(report.node, self.world.now)
        else:
            facts.out_at.pop(report.node, None)

    def sign_age(self, node: SimNode, about: str) -> float:
        """Return the truth about the last sign of ``about`` that was delivered to ``node``."""
        facts = self.facts[node.name]
        signs = facts.heard_at.get(about, -1e9), facts.answered_at.get(about, -1e9)
        return self.world.now - max(signs)

    def sighted(
        self, node: SimNode, witness: str, about: str, age: float | None, true_age: float
    ) -> None:
        """An answer about another node was read; ``true_age`` is what it should have said."""
        if age is not None:
            self.facts[node.name].witnesses[about][witness] = Witness(
                at=self.world.now, age=age, true_age=true_age
            )

    def probed(self, node: SimNode, peer: str, result: ProbeResult) -> None:
        """A probe's result was read."""
        facts = self.facts[node.name]
        if result.is_answered:
            facts.answered_at[peer] = self.world.now
            facts.silences[peer] = 0
        elif result.outcome is Outcome.REFUSED or result.answer.get("connected"):
            facts.refused_at[peer] = self.world.now
            facts.silences[peer] = 0
        else:
            facts.silences[peer] += 1

    def stood_still(self, node: SimNode) -> None:
        """The node noticed that it had stood still."""
        facts = self.facts[node.name]
        facts.went_on_at = self.world.now
        facts.silences.clear()
        self.world.note(f"{node.name}: stood still")

    def told(self, node: SimNode, what: str, is_so: bool) -> None:
        """`ha` was told something about its own machine."""
        told = self.facts[node.name].told
        (told.add if is_so else told.discard)(what)

    def ordered(self, node: SimNode, order: str) -> None:
        """The operator gave an order, which the node acknowledged."""
        name = node.name
        if order == "resume":
            self.forced[name], self.paused[name] = "", False
        elif order == "pause":
            self.paused[name] = True
        else:
            self.forced[name] = order.removeprefix("force_")
        facts = self.facts[name]
        facts.state_when_paused = None

    # --- the rules --------------------------------------------------------------------------------

    def stepped(self, node: SimNode, before: Decision, effects: list[Effect]) -> None:
        """Check everything after a step of ``node``."""
        self.tally.steps += 1
        facts = self.facts[node.name]
        assert node.core is not None
        after = node.core.decision
        for check in self._on_step:
            check(self, node, facts, after)
        if after is before:
            return
        if after.state is not before.state or after.yielding is not before.yielding:
            self.changed_at[node.name] = self.world.now
            self.world.note(f"{node.name}: {after.state.value}: {after.reason.text()}")
            for change in self._on_change:
                change(self, node, facts, before, after)
        for effect in effects:
            if isinstance(effect, PeerTransition):
                verdict = effect.view.verdict
                self.world.note(f"{node.name}: {effect.view.peer} is {verdict.value}")
                for judged in self._on_verdict:
                    judged(self, node, facts, effect)
        facts.first_step = False

    def second(self) -> None:
        """Check what is to hold over time; called once a second."""
        for check in self._on_second:
            for node in self.nodes.values():
                check(self, node)

    def takes_call(self, node: SimNode, call: SimCall, ground: Ground, *, is_served: bool) -> None:
        """A gateway has accepted that ``node`` takes a call over."""
        self.tally.taken += 1
        self.world.note(f"{node.name}: has taken {call.id} of {call.anchor}: {ground.value}")
        for check in self._on_take:
            check(self, node, call, ground, is_served)

    def broken(self, rule: str, node: SimNode, text: str) -> RuleBrokenError:
        """Return the error that says that a rule is broken."""
        return RuleBrokenError(rule, node.name, self.world.now, text)
