"""Stamping the edits of a UCI file, and merging two of them option by option. Pure.

``stamp_package`` compares the file with its last state and stamps what changed. An edit is stamped
whole (the later file wins as a whole against it) when options cannot be told apart or put back in
order: there are anonymous sections before or after it, sections or options were reordered, or so
much was deleted that remembering it would cost more than the file.

``merge`` joins two states (``uci_state`` has the rules). Where one side's setting is not what the
result says, and the other side had not seen the edit behind it, that is a conflict, and the file
of that side is to be kept. Concurrency is told by ``StampedPackage.seen``, a version vector: exact,
also for edits that arrived by way of others. An option that both sides set to one value is none.

When the schema refuses the result but neither file on its own (a route of one side through a
gateway that the other deleted), the later file wins as if its last edit had written it whole. This
alone is not associative; replicas still agree, because whichever whole write is the last one wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from controlone_ha.config.schema import PACKAGES
from controlone_ha.config.validate import Findings, read_section
from controlone_ha.sync.content import shared_content
from controlone_ha.sync.stamps import Stamp
from controlone_ha.sync.uci_state import (
    GAP,
    Creation,
    OptionFact,
    SectionFacts,
    StampedPackage,
    frozen,
    joined,
    keyed,
    whole,
)
from controlone_ha.uci import UciInvalidError, loads
from controlone_ha.uci.model import Option, Package, Section

__all__ = [
    "FIRST", "SECOND", "Conflict", "Merged", "StampedPackage", "merge", "stamp_package",
]  # fmt: skip

FIRST: Final = "first"
SECOND: Final = "second"

_REMEMBERED: Final = 8 << 10
"""Bytes of deleted settings that are remembered beyond the size of the file."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """One setting of one side that lost to an edit which did not know it.

    ``side``: whose setting lost, the first's or the second's. ``option`` None: the section itself.
    ``code`` and ``text`` are for the person: ``edited_twice``, ``section_deleted``,
    ``written_whole`` or ``refused``.
    """

    side: str
    section: str
    option: str | None
    loser: Stamp
    winner: Stamp
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Merged:
    """The result: state, text (without node-scope options) and what lost."""

    package: StampedPackage
    text: bytes
    conflicts: tuple[Conflict, ...]

    @property
    def losers(self) -> frozenset[str]:
        """The sides whose file must be kept as a conflict copy."""
        return frozenset(conflict.side for conflict in self.conflicts)


# -- stamping ------------------------------------------------------------------------------------


def stamp_package(
    old: StampedPackage | None, text: bytes, stamp: Stamp, *, name: str = ""
) -> StampedPackage:
    """Return the state after an edit left ``text``: what changed since ``old`` gets ``stamp``.

    ``name`` is that of the package, needed when there is no ``old``. Node-scope options are left
    out. Nothing changed: ``old`` itself. Raises ``UciError`` for a text that cannot be parsed or
    written again, ``ValueError`` for a stamp that is not later than everything in ``old``.
    """
    name = old.name if old is not None else name
    package = loads(shared_content(name, text), name)
    if old is not None:
        if old.package() == package:
            return old
        if stamp <= old.latest:
            raise ValueError(f"{stamp.text()} is not later than {old.latest.text()}")
    new = _stepwise(old, package, stamp) if old is not None else None
    if new is None:
        new = whole(name, package, stamp, old.seen if old is not None else None)
    if loads(new.text(), name) != package:
        raise UciInvalidError(f"{name}: holds a section type that cannot be written")
    return new


def _stepwise(old: StampedPackage, package: Package, stamp: Stamp) -> StampedPackage | None:
    """Return the state with only what changed stamped; None when that cannot be done."""
    before = dict(old.visible())
    if any(name[0] == "@" for name in before) or any(section.anonymous for section in package):
        return None
    present = dict(keyed(package))
    sections = dict(old.sections)
    for name in before.keys() - present.keys():
        facts = before[name]
        sections[name] = SectionFacts(facts.created, facts.touched, stamp, facts.options)
    kept = {
        name: facts.created.position
        for name, facts in before.items()
        if facts.created is not None and name in present
    }
    positions = _placed(list(present), kept)
    for name, section in present.items():
        facts = before.get(name, SectionFacts())
        if facts.created is None or facts.created.type != section.type:
            deleted = sections[name].deleted if name in sections else None
            created = Creation(stamp, section.type, positions[name])
            options = _edited({}, section, stamp)
            sections[name] = SectionFacts(created, stamp, deleted, options)
        elif [(key, fact.value) for key, fact in facts.visible()] != _options(section):
            options = _edited(facts.options, section, stamp)
            sections[name] = SectionFacts(facts.created, stamp, facts.deleted, options)
    new = StampedPackage(
        old.name,
        old.epoch,
        dict(sorted({**old.seen, stamp.node: stamp}.items())),
        dict(sorted(sections.items())),
    )
    if new.package() != package or _forgotten(new) > _REMEMBERED + _weight(package):
        return None
    return new


def _options(section: Section) -> list[tuple[str, Any]]:
    return [(option.name, frozen(option.value)) for option in section]


def _edited(before: Any, section: Section, stamp: Stamp) -> dict[str, OptionFact]:
    facts: dict[str, OptionFact] = dict(before)
    present = {option.name: option for option in section}
    kept = {
        name: fact.position
        for name, fact in facts.items()
        if name in present and fact.value is not None
    }
    positions = _placed(list(present), kept)
    for name, fact in facts.items():
        if name not in present and fact.value is not None:
            facts[name] = OptionFact(stamp, None, fact.position)
    for name, option in present.items():
        value, known = frozen(option.value), facts.get(name)
        if known is None or known.value != value:
            facts[name] = OptionFact(stamp, value, positions[name])
    return dict(sorted(facts.items()))


def _placed(order: list[str], kept: dict[str, int]) -> dict[str, int]:
    """Return a position for each name: the kept ones, and between them what is new.

    Without room between two, or when the kept ones are in another order, positions come out that
    do not give this order: the caller looks at the result.
    """
    positions: dict[str, int] = {}
    last, waiting = 0, [*order, None]
    run: list[str] = []
    for name in waiting:
        if name is not None and name not in kept:
            run.append(name)
            continue
        end = kept[name] if name is not None else None
        step = GAP if end is None else max(0, end - last) // (len(run) + 1)
        if end is None:
            last = max([last, *kept.values()])
        for number, new in enumerate(run, 1):
            positions[new] = last + number * step
        run = []
        if name is not None and end is not None:
            positions[name] = last = end
    return positions


def _weight(package: Package) -> int:
    return sum(
        16 + len(section.type) + len(section.name) + sum(map(_option_weight, section))
        for section in package
    )


def _option_weight(option: Option) -> int:
    return sum(12 + len(option.name) + len(value) for value in option.values)


def _forgotten(state: StampedPackage) -> int:
    """Return about how many bytes the facts take that the file does not show."""
    total = 0
    for name, facts in state.sections.items():
        if not facts.is_there:
            total += 40 + len(name)
        for option, fact in facts.options.items():
            if fact.value is None:
                total += 24 + len(option)
            elif not facts.is_there:
                values = (fact.value,) if isinstance(fact.value, str) else fact.value
                total += sum(24 + len(option) + len(value) for value in values)
    return total


# -- merging -------------------------------------------------------------------------------------


def merge(first: StampedPackage, second: StampedPackage) -> Merged:
    """Return both states merged, and which settings of which side lost unseen.

    Raises ``ValueError`` when they are not states of one package.
    """
    if first.name != second.name:
        raise ValueError(f"{first.name} and {second.name} are two packages")
    result, code = joined(first, second), ""
    if _is_refused(result, first, second):
        later = max(first, second, key=lambda state: (state.latest, state.text()))
        result = whole(first.name, later.package(), later.latest, result.seen)
        code = "refused"
    conflicts = (
        *_lost(FIRST, first, second, result, code),
        *_lost(SECOND, second, first, result, code),
    )
    return Merged(result, result.text(), conflicts)


def _is_refused(result: StampedPackage, first: StampedPackage, second: StampedPackage) -> bool:
    """Tell whether the schema finds errors in the result that neither side has."""
    if result.name not in PACKAGES or result in (first, second):
        return False
    return bool(_errors(result) - _errors(first) - _errors(second))


def _errors(state: StampedPackage) -> set[str]:
    package, findings = state.package(), Findings()
    gateways = {section.name for section in package.sections("gateway")}
    for section in package:
        values = read_section(package, section, package.name, findings)
        for name in values.get("gateways", ()) if section.type == "route" else ():
            if name not in gateways:
                findings.errors.append(f"{section.name}: {name} is no gateway")
    return set(findings.errors)


def _lost(
    side: str, state: StampedPackage, other: StampedPackage, result: StampedPackage, code: str
) -> Iterator[Conflict]:
    """Return what ``state`` says, the result does not, and ``other`` had not seen."""
    for name in sorted({*state.sections, *result.sections}):
        mine = state.sections.get(name, SectionFacts())
        final = result.sections.get(name, SectionFacts())
        kinds = (_kind(mine), _kind(final))
        if kinds[0] != kinds[1]:
            conflict = _judged(side, name, None, state, other, result, code)
            if conflict is not None:
                yield conflict
            if mine.is_there and not final.is_there:
                continue
        if not mine.is_there:
            continue
        for option in sorted({*mine.options, *final.options}):
            if _shown(mine, option) == _shown(final, option):
                continue
            conflict = _judged(side, name, option, state, other, result, code)
            if conflict is not None:
                yield conflict


def _kind(facts: SectionFacts) -> str | None:
    return facts.created.type if facts.is_there and facts.created is not None else None


def _shown(facts: SectionFacts, option: str) -> str | tuple[str, ...] | None:
    fact = facts.options.get(option)
    return fact.value if fact is not None and facts.is_there else None


def _judged(
    side: str,
    section: str,
    option: str | None,
    state: StampedPackage,
    other: StampedPackage,
    result: StampedPackage,
    code: str,
) -> Conflict | None:
    loser = _behind(state, section, option)
    if other.has_seen(loser):
        return None
    winner = _behind(result, section, option)
    if not code:
        final = result.sections.get(section, SectionFacts())
        if winner == result.epoch != state.epoch:
            code = "written_whole"
        else:
            code = "edited_twice" if final.is_there else "section_deleted"
    what = f"{state.name}.{section}" + (f".{option}" if option is not None else "")
    return Conflict(side, section, option, loser, winner, code, _SENTENCES[code].format(
        what=what, loser=loser.node, winner=winner.node
    ))  # fmt: skip


_SENTENCES: Final = {
    "edited_twice": "{what} was changed by {loser} and, later, by {winner}",
    "section_deleted": "{what} was changed by {loser}, and its section deleted later by {winner}",
    "written_whole": "{what} was changed by {loser}, and the file rewritten by {winner}",
    "refused": "{what} as {loser} left it does not go together with the later file of {winner}",
}


def _behind(state: StampedPackage, section: str, option: str | None) -> Stamp:
    """Return the edit that made the setting what ``state`` says it is, its absence included."""
    facts = state.sections.get(section, SectionFacts())
    stamps = [state.epoch]
    if facts.created is not None:
        stamps.append(facts.created.stamp)
    if facts.deleted is not None and not facts.is_there:
        stamps.append(facts.deleted)
    if option is None:
        if facts.is_there and facts.touched is not None:
            stamps.append(facts.touched)
    elif option in facts.options:
        stamps.append(facts.options[option].stamp)
    return max(stamps)
