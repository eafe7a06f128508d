"""The language of the command: which one, and its texts.

The command's own texts live in ``texts_en`` and ``texts_pt`` (same keys, same parameters; a test
compares them). Sentences of reasons come from ``core.catalog``; a reason this version does not
know is shown in the words of the node that sent it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ENGLISH = "en"
PORTUGUESE = "pt_BR"
LANGUAGES = (ENGLISH, PORTUGUESE)


def choose_language(asked: str | None, environment: Mapping[str, str] | None = None) -> str:
    """Return the language: ``asked``, else LC_ALL, LC_MESSAGES, LANG, as POSIX orders them."""
    env = os.environ if environment is None else environment
    name = asked or env.get("LC_ALL") or env.get("LC_MESSAGES") or env.get("LANG") or ""
    return PORTUGUESE if name.lower().startswith("pt") else ENGLISH


class Texts:
    """The texts of one language: ``texts("key", name=value)``."""

    def __init__(self, language: str) -> None:
        self.language = language
        if language == PORTUGUESE:
            from controlone_ha.control.texts_pt import TEXTS
        else:
            from controlone_ha.control.texts_en import TEXTS
        self._texts = TEXTS

    def __call__(self, key: str, /, **params: Any) -> str:
        """Return the text of ``key`` with its parameters filled in."""
        template = self._texts[key]
        return template.format(**params) if params else template

    def number(self, text: str) -> str:
        """Return a number written by Python with this language's decimal mark."""
        return text.replace(".", ",") if self.language == PORTUGUESE else text

    def word(self, kind: str, value: Any) -> str:
        """Return a value of the API (state, verdict, …) in this language; if unknown, as it is."""
        return self._texts.get(f"{kind}.{value}", str(value))

    def reason(self, reason: Mapping[str, Any] | None) -> str:
        """Return the sentence of a ``{"code", "text", "params"}`` in this language."""
        if not reason:
            return ""
        text = str(reason.get("text") or "")
        code = str(reason.get("code") or "")
        if text and self.language == ENGLISH:
            return text
        return self.sentence(code, reason.get("params")) or text or code

    def link(self, link: Mapping[str, Any]) -> str:
        """Return what a link's ``code`` and ``text`` say."""
        text = str(link.get("text") or "")
        if text and self.language == ENGLISH:
            return text
        code = str(link.get("code") or "")
        return self._texts.get(f"link_code.{code}") or text or code or "?"

    def said(self, text: Any) -> str:
        """Return a sentence of the synchronisation, which has no code, in this language."""
        if self.language == ENGLISH:
            return str(text)
        from controlone_ha.control.sync_words import in_portuguese

        return in_portuguese(str(text))

    def finding(self, finding: Mapping[str, Any]) -> tuple[str, str]:
        """Return text and remedy of a finding or warning; those that quote a file stay English."""
        text, remedy = str(finding.get("text") or ""), str(finding.get("remedy") or "")
        code = finding.get("code")
        if self.language == ENGLISH and text:
            return text, remedy
        try:
            params = dict(finding.get("params") or {})
            return (
                self._texts[f"finding.{code}"].format(**params),
                self._texts[f"remedy.{code}"].format(**params),
            )
        except (KeyError, ValueError, TypeError):
            return text or str(code or "?"), remedy  # a code this version does not know

    def sentence(self, code: str, params: Any = None) -> str | None:
        """Return the catalogue's sentence of ``code``; None when it has none."""
        from controlone_ha.core.catalog import sentence

        known = params if isinstance(params, dict) else {}
        return sentence(
            code, {name: self._parameter(value) for name, value in known.items()}, self.language
        )

    def _parameter(self, value: Any) -> Any:
        # A parameter may be a reason itself ("{peer} disabled its Console Server: {why}").
        if isinstance(value, dict) and "code" in value:
            return self.reason(value)
        if isinstance(value, list):
            return ", ".join(str(self._parameter(item)) for item in value)
        return self.word("state", value) if isinstance(value, str) else value
