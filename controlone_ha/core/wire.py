"""A report as it travels between nodes: JSON, checked field by field on arrival."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controlone_ha.core.model import Report, Role, State, Yielding
from controlone_ha.core.reasons import Reason, reason_from_json

MAX_NAMES = 1000
MAX_TEXT = 200


def report_to_json(report: Report) -> dict[str, Any]:
    """Return the JSON form of ``report``."""
    return {
        "node": report.node,
        "role": report.role.value,
        "state": report.state.value,
        "reason": report.reason.to_json(),
        "since": report.since,
        "priority": report.priority,
        "site": report.site,
        "incarnation": report.incarnation,
        "revision": report.revision,
        "covers": sorted(report.covers),
        "covering": sorted(report.covering),
        "ineligible": report.ineligible.to_json() if report.ineligible else None,
        "yielding": report.yielding.value,
        "consents": sorted(report.consents),
        "offers": sorted(report.offers),
        "forced": report.forced,
        "version": report.version,
        "takes": sorted(report.takes),
        "releases": report.releases,
    }


def report_from_json(raw: Mapping[str, Any], sender: str) -> Report:
    """Return the report in ``raw``; raise ``ValueError`` saying what is wrong.

    ``sender`` is the authenticated name of the link's other end: nobody reports for somebody else.
    """
    if raw.get("node") != sender:
        raise ValueError(f"report of {raw.get('node')!r} sent by {sender!r}")
    return Report(
        node=sender,
        role=Role(_text(raw, "role")),
        state=State(_text(raw, "state")),
        reason=_reason(raw.get("reason")) or Reason(code="unknown"),
        since=_number(raw, "since"),
        priority=int(_number(raw, "priority")),
        site=_text(raw, "site"),
        incarnation=int(_number(raw, "incarnation")),
        revision=int(_number(raw, "revision")),
        covers=_names(raw, "covers"),
        covering=_names(raw, "covering"),
        ineligible=_reason(raw.get("ineligible")),
        yielding=Yielding(_text(raw, "yielding")),
        consents=_names(raw, "consents"),
        offers=_names(raw, "offers"),
        forced=_text(raw, "forced"),
        version=_text(raw, "version"),
        takes=_names(raw, "takes"),
        releases=raw.get("releases") is True,
    )


def is_newer(report: Report, known: Report | None) -> bool:
    """True when ``report`` replaces ``known``: incarnation first, then revision."""
    if known is None:
        return True
    return (report.incarnation, report.revision) > (known.incarnation, known.revision)


def _reason(raw: Any) -> Reason | None:
    return reason_from_json(raw) if isinstance(raw, Mapping) else None


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key, "")
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"{key}: expected a short text, got {value!r:.80}")
    return value


def _number(raw: Mapping[str, Any], key: str) -> float:
    value = raw.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:
        raise ValueError(f"{key}: expected a number, got {value!r:.80}")
    return value


def _names(raw: Mapping[str, Any], key: str) -> frozenset[str]:
    value = raw.get(key, [])
    if not isinstance(value, Iterable) or isinstance(value, str | Mapping):
        raise ValueError(f"{key}: expected a list of names, got {value!r:.80}")
    names = list(value)
    if len(names) > MAX_NAMES:
        raise ValueError(f"{key}: expected at most {MAX_NAMES} names")
    if not all(isinstance(name, str) and len(name) <= MAX_TEXT for name in names):
        raise ValueError(f"{key}: expected short names")
    return frozenset(names)
