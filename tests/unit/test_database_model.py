"""Three model nodes that write, stamp, read each other, crash and are cut off: they agree."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from controlone_ha.sync.database.judge import Verdict, judge
from controlone_ha.sync.database.versions import Row, is_stamped_already, local_write

NODES = ("a", "b", "c")
KEYS = (b"1" * 16, b"2" * 16)
SKEW_MS = 5_000


@dataclass
class Event:
    """What a node's change stream shows of one write."""

    key: bytes
    wall: int
    content: bytes | None


@dataclass
class Node:
    """A database (documents, events) and its synchroniser (rows, numbers, positions)."""

    name: str
    skew: int = 0
    documents: dict[bytes, bytes | None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    stamped_events: int = 0
    noted_events: int = 0
    """How many events are before the noted place: the others come again after a kill."""
    rows: dict[bytes, Row] = field(default_factory=dict)
    numbers: dict[bytes, int] = field(default_factory=dict)
    head: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    known: dict[bytes, frozenset[bytes]] = field(default_factory=dict)
    """The writes that went into the present document of a key, or that it has replaced."""

    def put(self, row: Row) -> None:
        self.head += 1
        self.rows[row.key] = row
        self.numbers[row.key] = self.head


class ThreeDatabases(RuleBasedStateMachine):
    """Writes have contents of their own, so that a content stands for a write."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = {name: Node(name) for name in NODES}
        self.cut: frozenset[str] = frozenset()
        self.now = 1_000_000
        self.writes: dict[bytes, list[tuple[int, str, bytes | None]]] = {key: [] for key in KEYS}
        self.knew: dict[bytes, frozenset[bytes]] = {}
        """Content of a write -> all writes that its writer had seen of that document."""
        self.deletes_knew: list[frozenset[bytes]] = []
        self.conflicts: set[bytes] = set()

    @initialize(skews=st.tuples(*[st.sampled_from((0, 0, 900, -900))] * 3))
    def begin(self, skews: tuple[int, int, int]) -> None:
        for node, skew in zip(self.nodes.values(), skews, strict=True):
            node.skew = skew

    @rule(name=st.sampled_from(NODES), key=st.sampled_from(KEYS), ms=st.integers(0, 3))
    def write(self, name: str, key: bytes, ms: int) -> None:
        self.now += ms
        content = hashlib.blake2b(f"{self.now} {len(self.knew)}".encode(), digest_size=16).digest()
        node = self.nodes[name]
        seen = node.known.get(key, frozenset())
        self.knew[content] = seen
        node.known[key] = seen | {content}
        self._happen(node, key, content)

    @rule(name=st.sampled_from(NODES), key=st.sampled_from(KEYS), ms=st.integers(0, 3))
    def delete(self, name: str, key: bytes, ms: int) -> None:
        self.now += ms
        node = self.nodes[name]
        if node.documents.get(key) is not None:
            self.deletes_knew.append(node.known.get(key, frozenset()))
            self._happen(node, key, None)

    def _happen(self, node: Node, key: bytes, content: bytes | None) -> None:
        node.documents[key] = content
        node.events.append(Event(key, self.now + node.skew, content))
        self.writes[key].append((self.now, node.name, content))

    @rule(name=st.sampled_from(NODES), is_noted=st.booleans())
    def stamp(self, name: str, is_noted: bool) -> None:
        """A batch: of each document its last event counts."""
        node = self.nodes[name]
        last: dict[bytes, Event] = {}
        for event in node.events[node.stamped_events :]:
            last[event.key] = event
        for key, event in last.items():
            before = node.rows.get(key)
            if is_stamped_already(before, event.content, event.wall):
                continue
            node.put(
                local_write(
                    key=key,
                    namespace="app.things",
                    identity=key,
                    node=name,
                    wall_milliseconds=event.wall,
                    content=event.content,
                    size=0,
                    before=before,
                )
            )
        node.stamped_events = len(node.events)
        if is_noted:
            node.noted_events = node.stamped_events

    @rule(name=st.sampled_from(NODES))
    def kill(self, name: str) -> None:
        """The synchroniser is killed: before it goes on, it drains what it had not noted."""
        node = self.nodes[name]
        node.stamped_events = node.noted_events
        self.stamp(name, is_noted=True)

    @rule(away=st.sets(st.sampled_from(NODES), max_size=2))
    def partition(self, away: set[str]) -> None:
        self.cut = frozenset(away)

    @rule(name=st.sampled_from(NODES), peer=st.sampled_from(NODES))
    def pull(self, name: str, peer: str) -> None:
        if name == peer or (name in self.cut) != (peer in self.cut):
            return
        node, other = self.nodes[name], self.nodes[peer]
        position = node.positions.get(peer, 0)
        news = sorted((number, key) for key, number in other.numbers.items() if number > position)
        for number, key in news:
            self._apply(node, other, other.rows[key])
            node.positions[peer] = number

    def _apply(self, node: Node, other: Node, row: Row) -> None:
        # The applier takes the document as the row describes it; a later one has a later row.
        if other.documents.get(row.key) != row.content:
            return
        while True:
            own = node.rows.get(row.key)
            present = node.documents.get(row.key)
            verdict = judge(row, own, present, now_ms=self.now + node.skew, allowed_skew_ms=SKEW_MS)
            if verdict is not Verdict.UNSTAMPED:
                break
            self.stamp(node.name, is_noted=False)
        if verdict in (Verdict.APPLY, Verdict.CONFLICT):
            if verdict is Verdict.CONFLICT and present is not None:
                self.conflicts.add(present)
            node.documents[row.key] = row.content
            node.put(row.merged(own) if own is not None else row)
            mine = node.known.get(row.key, frozenset())
            node.known[row.key] = other.known.get(row.key, frozenset()) | mine

    def teardown(self) -> None:
        """All are healed and read each other: they are equal, and nothing is lost."""
        self.cut = frozenset()
        for name in NODES:
            self.stamp(name, is_noted=True)
        for _ in range(4):
            for name in NODES:
                for peer in NODES:
                    self.pull(name, peer)
        first, *others = (self.nodes[name] for name in NODES)
        for key in KEYS:
            final = first.documents.get(key)
            assert all(node.documents.get(key) == final for node in others)
            orders = {node.rows[key].order for node in (first, *others) if key in node.rows}
            assert len(orders) <= 1
            self._nothing_lost(key, final)
            self._last_writer(key, final)

    def _nothing_lost(self, key: bytes, final: bytes | None) -> None:
        replaced = frozenset().union(
            *(self.knew[content] for _, _, content in self.writes[key] if content is not None),
            *self.deletes_knew,
        )
        for _, name, content in self.writes[key]:
            if content is not None and content != final and content not in replaced:
                assert content in self.conflicts, f"a write of {name} is lost"

    def _last_writer(self, key: bytes, final: bytes | None) -> None:
        """With equal clocks the last write has won, whatever the order things came in."""
        if any(node.skew for node in self.nodes.values()) or not self.writes[key]:
            return
        moment = self.writes[key][-1][0]
        # Writes of one millisecond may go either way; a chain of them on one node counts up.
        latest = {content for at, _, content in self.writes[key] if at >= moment - 3}
        assert final in latest


TestThreeDatabases = ThreeDatabases.TestCase
TestThreeDatabases.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
