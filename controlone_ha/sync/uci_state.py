"""What every setting of a UCI file is and when it became so: facts, each with its stamp. Pure.

Theory of operation. The state of a package is a set of facts: a section was created (with its
type), was touched (something in it was edited), was deleted; an option has a value, or none since
it was deleted. Each fact carries the stamp of the edit that made it. Joining two states keeps the
later of each; nothing is stamped by it. Two rules keep that from putting together what nobody
wrote: an option older than the creation of its section is dropped (who created the section anew
wrote it whole), and every fact older than ``epoch``, the last edit that wrote the file whole, is
dropped. Both only look at maxima, so joining is commutative, associative and idempotent.

A section is there while it was touched later than deleted: an edit in it that is later than
somebody's deletion brings the whole section back, which is why a deleted section keeps its facts.

``seen`` tells of each node which of its edits are contained: all up to that stamp. Two edits are
concurrent when neither's state has seen the other. Positions are numbers with gaps; they only serve
to render sections and options in the order in which they were written.

Node-scope options are no facts: they never get in.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from controlone_ha.errors import UciError
from controlone_ha.sync.content import shared_content
from controlone_ha.sync.stamps import Stamp
from controlone_ha.uci import dumps, loads
from controlone_ha.uci.model import Package, Value, check_value
from controlone_ha.uci.names import is_name, is_package_word, is_plain_type

GAP: Final = 1024
MAX_STATE: Final = 8 << 20
"""Bytes of JSON that a state may have: far more than a UCI file that is synchronised needs."""
MAX_NODES: Final = 64
_MAX_POSITION: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class OptionFact:
    """An option as one edit left it; ``value`` None: deleted."""

    stamp: Stamp
    value: str | tuple[str, ...] | None
    position: int

    @property
    def key(self) -> tuple[Stamp, str, int]:
        """What decides: the stamp; the rest only for one stamp with two values, which is a lie."""
        return (self.stamp, repr(self.value), self.position)


@dataclass(frozen=True, slots=True)
class Creation:
    """A section as one edit made it."""

    stamp: Stamp
    type: str
    position: int


@dataclass(frozen=True, slots=True)
class SectionFacts:
    """What is known of the section of one name; a name with ``@`` belongs to an anonymous one."""

    created: Creation | None = None
    touched: Stamp | None = None
    deleted: Stamp | None = None
    options: Mapping[str, OptionFact] = field(default_factory=dict)

    @property
    def is_there(self) -> bool:
        """Whether the file has the section."""
        if self.created is None or self.touched is None:
            return False
        return self.deleted is None or self.touched > self.deleted

    def visible(self) -> list[tuple[str, OptionFact]]:
        """Return the options that the file has, in its order."""
        found = [(name, fact) for name, fact in self.options.items() if fact.value is not None]
        return sorted(found, key=lambda item: (item[1].position, item[1].stamp, item[0]))


@dataclass(frozen=True, slots=True)
class StampedPackage:
    """A UCI package and the stamp of everything in it; see the module's text."""

    name: str
    epoch: Stamp
    seen: Mapping[str, Stamp]
    sections: Mapping[str, SectionFacts]

    @property
    def latest(self) -> Stamp:
        """The last edit that is contained: the stamp of the file."""
        return max(self.seen.values())

    def has_seen(self, stamp: Stamp) -> bool:
        """Tell whether the edit of that stamp is contained."""
        last = self.seen.get(stamp.node)
        return last is not None and stamp <= last

    def visible(self) -> list[tuple[str, SectionFacts]]:
        """Return the sections that the file has, in its order."""
        found = [(name, facts) for name, facts in self.sections.items() if facts.is_there]

        def order(item: tuple[str, SectionFacts]) -> tuple[int, Stamp, str]:
            created = item[1].created
            assert created is not None
            return (created.position, created.stamp, item[0])

        return sorted(found, key=order)

    def package(self) -> Package:
        """Return what the file says."""
        made = Package(self.name)
        for name, facts in self.visible():
            assert facts.created is not None
            section = made.append_section(facts.created.type, None if name[0] == "@" else name)
            for option, fact in facts.visible():
                assert fact.value is not None
                section.put_option(option, unfrozen(fact.value))
        return made

    def text(self) -> bytes:
        """Return the file as a commit leaves it, without node-scope options."""
        return dumps(self.package())

    def describes(self, text: bytes) -> bool:
        """Tell whether ``text`` is a file of this state: the same settings in the same order.

        Raises ``UciError`` for a text that cannot be parsed.
        """
        return loads(shared_content(self.name, text), self.name) == self.package()

    def to_bytes(self) -> bytes:
        """Return the state for journal and wire: ASCII, JSON, or packed JSON when that is long."""
        raw = json.dumps(_encoded(self), separators=(",", ":")).encode()
        if len(raw) <= 512 or len(raw) <= 2 * len(self.text()):
            return raw
        return b"z" + base64.b85encode(zlib.compress(raw, 6))

    @classmethod
    def from_bytes(cls, raw: bytes) -> StampedPackage:
        """Return a state that ``to_bytes`` gave; raise ``ValueError`` for anything else."""
        if raw[:1] == b"z":
            if len(raw) > MAX_STATE:
                raise ValueError("a state of a UCI file that is too long")
            unpacker = zlib.decompressobj()
            try:
                raw = unpacker.decompress(base64.b85decode(raw[1:]), MAX_STATE + 1)
            except (zlib.error, ValueError) as error:
                raise ValueError(f"no state of a UCI file: {error}") from None
        if len(raw) > MAX_STATE:
            raise ValueError("a state of a UCI file that is too long")
        try:
            return _decoded(json.loads(raw))
        except (KeyError, IndexError, TypeError, RecursionError, ValueError, UciError) as error:
            raise ValueError(f"no state of a UCI file: {error}") from None


def joined(first: StampedPackage, second: StampedPackage) -> StampedPackage:
    """Return the state that keeps the later of each fact."""
    epoch = max(first.epoch, second.epoch)
    seen = dict(first.seen)
    for node, stamp in second.seen.items():
        seen[node] = max(stamp, seen.get(node, stamp))
    sections = {}
    for name in sorted({*first.sections, *second.sections}):
        facts = _joined(
            first.sections.get(name, SectionFacts()), second.sections.get(name, SectionFacts())
        )
        facts = _since(facts, epoch)
        if facts != SectionFacts():
            sections[name] = facts
    return StampedPackage(first.name, epoch, dict(sorted(seen.items())), sections)


def _joined(first: SectionFacts, second: SectionFacts) -> SectionFacts:
    options = dict(first.options)
    for name, fact in second.options.items():
        mine = options.get(name)
        if mine is None or fact.key > mine.key:
            options[name] = fact
    made = [item for item in (first.created, second.created) if item is not None]
    return SectionFacts(
        created=max(made, key=lambda item: (item.stamp, item.type, item.position), default=None),
        touched=_later(first.touched, second.touched),
        deleted=_later(first.deleted, second.deleted),
        options=options,
    )


def _later(first: Stamp | None, second: Stamp | None) -> Stamp | None:
    return max((one for one in (first, second) if one is not None), default=None)


def _since(facts: SectionFacts, epoch: Stamp) -> SectionFacts:
    """Return what is left of ``facts`` after the file was written whole at ``epoch``."""
    created = facts.created
    if created is not None and created.stamp < epoch:
        created = None
    floor = created.stamp if created is not None else epoch
    return SectionFacts(
        created=created,
        touched=facts.touched if facts.touched is not None and facts.touched >= epoch else None,
        deleted=facts.deleted if facts.deleted is not None and facts.deleted >= epoch else None,
        options={name: fact for name, fact in sorted(facts.options.items()) if fact.stamp >= floor},
    )


def whole(
    name: str, package: Package, stamp: Stamp, seen: Mapping[str, Stamp] | None = None
) -> StampedPackage:
    """Return the state of a file that was written whole: every fact is of that edit."""
    sections = {}
    for number, (key, section) in enumerate(keyed(package), 1):
        options = {
            option.name: OptionFact(stamp, frozen(option.value), place * GAP)
            for place, option in enumerate(section, 1)
        }
        created = Creation(stamp, section.type, number * GAP)
        sections[key] = SectionFacts(created, stamp, None, options)
    known = {**(seen or {}), stamp.node: stamp}
    if seen is not None and stamp.node in seen:
        known[stamp.node] = max(stamp, seen[stamp.node])
    return StampedPackage(name, stamp, dict(sorted(known.items())), sections)


def keyed(package: Package) -> list[tuple[str, Any]]:
    """Return (key, section) in order: the name, or ``@`` and a number for an anonymous one."""
    return [
        (f"@{number}" if section.anonymous else section.name, section)
        for number, section in enumerate(package)
    ]


def frozen(value: Value) -> str | tuple[str, ...]:
    """Return a value that cannot change."""
    return value if isinstance(value, str) else tuple(value)


def unfrozen(value: str | tuple[str, ...]) -> Value:
    """Return a value as the UCI layer has it."""
    return value if isinstance(value, str) else list(value)


# -- JSON ----------------------------------------------------------------------------------------
# Stamps are a table of [wall, count, node]; facts name them by number. An option is [name, value,
# position, stamp], cut short where it is the next position and the stamp of its section's creation.


def _encoded(state: StampedPackage) -> dict[str, Any]:
    nodes: dict[str, int] = {}
    numbers: dict[Stamp, int] = {}
    table: list[list[int]] = []

    def number(stamp: Stamp | None) -> int:
        if stamp is None:
            return -1
        if stamp not in numbers:
            numbers[stamp] = len(numbers)
            node = nodes.setdefault(stamp.node, len(nodes))
            base = table[0][0] if table else 0
            table.append([stamp.wall_us - base, stamp.count, node])
        return numbers[stamp]

    head = [number(state.epoch), *map(number, state.seen.values())]
    sections = []
    for name, facts in state.sections.items():
        created = facts.created
        options, position = [], 0
        for option, fact in sorted(facts.options.items(), key=lambda item: item[1].position):
            value = list(fact.value) if isinstance(fact.value, tuple) else fact.value
            entry: list[Any] = [option, value, fact.position, number(fact.stamp)]
            if created is not None and fact.stamp == created.stamp:
                del entry[3]
                if fact.position == position + GAP:
                    del entry[2]
            position = fact.position
            options.append(entry)
        made = [created.type, created.position, number(created.stamp)] if created else []
        sections.append([name, made, number(facts.touched), number(facts.deleted), options])
    return {"package": state.name, "nodes": list(nodes), "stamps": table, "head": head,
            "sections": sections}  # fmt: skip


def _decoded(raw: dict[str, Any]) -> StampedPackage:
    nodes = [str(node) for node in raw["nodes"]]
    stamps: list[Stamp] = []
    for wall, count, node in raw["stamps"]:
        base = stamps[0].wall_us if stamps else 0
        stamps.append(
            Stamp.parse(f"{_integer(wall) + base}.{_integer(count)}@{nodes[_index(node)]}")
        )
    epoch, *heads = (stamps[_index(item)] for item in raw["head"])
    if not heads or len(heads) > MAX_NODES or len({stamp.node for stamp in heads}) != len(heads):
        raise ValueError("it does not say what it contains")
    seen = {stamp.node: stamp for stamp in sorted(heads, key=lambda item: item.node)}
    if not isinstance(raw["package"], str) or not is_package_word(raw["package"]):
        raise ValueError("it names no package")
    sections: dict[str, SectionFacts] = {}
    for name, made, touched, deleted, options in raw["sections"]:
        if not isinstance(name, str) or not is_name(name.removeprefix("@")) or name in sections:
            raise ValueError(f"{str(name)[:80]!a} cannot name a section")
        created = None
        if made:
            if not is_plain_type(made[0]):
                raise ValueError(f"{made[0][:80]!a} cannot be the type of a section")
            created = Creation(stamps[_index(made[2])], made[0], _position(made[1]))
        facts: dict[str, OptionFact] = {}
        place = 0
        for entry in options:
            place = _position(entry[2]) if len(entry) > 2 else place + GAP
            if len(entry) <= 3 and created is None:
                raise ValueError(f"{name}: an option without a stamp")
            stamp = stamps[_index(entry[3])] if len(entry) > 3 else created.stamp  # type: ignore[union-attr]
            if not is_name(entry[0]) or entry[0] in facts:
                raise ValueError(f"{name}: {str(entry[0])[:80]!a} cannot name an option")
            facts[entry[0]] = OptionFact(stamp, _value(entry[1]), place)
        sections[name] = SectionFacts(
            created,
            stamps[touched] if _integer(touched) >= 0 else None,
            stamps[deleted] if _integer(deleted) >= 0 else None,
            dict(sorted(facts.items())),
        )
    state = StampedPackage(raw["package"], epoch, seen, dict(sorted(sections.items())))
    if not all(state.has_seen(stamp) for stamp in stamps):
        raise ValueError("it holds edits that it says it has not seen")
    return joined(state, state)


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!a} is no number")
    return value


def _index(value: Any) -> int:
    if _integer(value) < 0:
        raise ValueError(f"{value!a} is no number of a stamp")
    return int(value)


def _position(value: Any) -> int:
    if not 0 <= _integer(value) <= _MAX_POSITION:
        raise ValueError(f"{value!a} is no position")
    return int(value)


def _value(value: Any) -> str | tuple[str, ...] | None:
    if value is None:
        return None
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, str) or not (item or isinstance(value, list)):
            raise ValueError("a value that is no text")
        check_value(item)
    if not items:
        raise ValueError("an empty list")
    return tuple(items) if isinstance(value, list) else items[0]
