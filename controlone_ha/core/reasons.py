"""A reason: a code, its parameters, and the evidence used.

The same object serves log, history, command, web page and tests; its sentence is looked up in
``core.catalog`` in the language of whoever reads it, never stored as text only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from controlone_ha.core.catalog import sentence


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One observation that supports a reason: ``path`` is ``direct``, ``own`` or ``via NODE``."""

    kind: str
    text: str
    path: str = "direct"
    age: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; ``age`` in seconds at the moment of the decision."""
        age = None if self.age is None else round(self.age, 3)
        return {"kind": self.kind, "text": self.text, "path": self.path, "age": age}


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why something is as it is. ``code`` is a key of the catalogue."""

    code: str
    params: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()

    def text(self, language: str = "en") -> str:
        """Return the sentence for a person; an unknown code is shown as it is."""
        return sentence(self.code, self.params, language) or self.code

    def to_json(self) -> dict[str, Any]:
        """Return ``{"code", "text", "params", "evidence"}``; ``text`` is English."""
        return {
            "code": self.code,
            "text": self.text(),
            "params": dict(self.params),
            "evidence": [item.to_json() for item in self.evidence],
        }

    def is_same_cause(self, other: Reason) -> bool:
        """True when both say the same; evidence may have aged meanwhile."""
        return self.code == other.code and dict(self.params) == dict(other.params)


def reason(code: str, *, evidence: tuple[Evidence, ...] = (), **params: Any) -> Reason:
    """Return a ``Reason``; shorthand for the many places that state one."""
    return Reason(code=code, params=params, evidence=evidence)


def reason_from_json(raw: Mapping[str, Any]) -> Reason:
    """Return the reason another node sent; unknown codes keep the sender's text as parameter."""
    evidence = tuple(
        Evidence(
            kind=str(item.get("kind", "")),
            text=str(item.get("text", "")),
            path=str(item.get("path", "")),
            age=_age(item.get("age")),
        )
        for item in _sequence(raw.get("evidence"))
        if isinstance(item, Mapping)
    )
    params = raw.get("params")
    return Reason(
        code=str(raw.get("code", "unknown")),
        params={str(name): _plain(value) for name, value in params.items()}
        if isinstance(params, Mapping)
        else {},
        evidence=evidence,
    )


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _age(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value < 2**63 else None


def _plain(value: Any) -> str | int | float:
    """Parameters are texts and numbers; whatever else was sent is shown as text."""
    if isinstance(value, str | int):
        return value
    return value if isinstance(value, float) and isfinite(value) else str(value)
