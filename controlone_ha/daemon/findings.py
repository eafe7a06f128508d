"""A finding of ``ha check``: what is wrong, where, and what to do about it.

Its sentences have one source, the texts of the command (``finding.CODE`` and ``remedy.CODE``), from
which the command takes those of the reader's language.
"""

from __future__ import annotations

from typing import Any

from controlone_ha.control.texts_en import TEXTS

Finding = dict[str, Any]


def finding(
    severity: str, area: str, code: str, *, text: str = "", remedy: str = "", **params: object
) -> Finding:
    """Return a finding. ``severity``: error or warning. ``text`` and ``remedy``: where what was
    found says more than the sentence of ``code``.
    """
    return {
        "severity": severity,
        "area": area,
        "code": code,
        "text": text or TEXTS[f"finding.{code}"].format(**params),
        "remedy": remedy or TEXTS[f"remedy.{code}"].format(**params),
        "params": params,
    }
