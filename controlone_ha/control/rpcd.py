"""The rpcd plug-in: `ubus call ha METHOD` does what `ha METHOD --json` does, and answers the same.

rpcd runs it with ``list`` (which methods, with which parameters) or ``call METHOD``, the message
being JSON on stdin. Methods are the commands of ``control.arguments``: a new command is a new
method. Parameters are a command's options by their long names, and ``arguments`` for its words
(``peer`` where that word is a peer). An answer that is a list stands in a table, under the method's
name, as ubus knows tables only. What fails is answered as ``{"error": {"code", "text"}}`` with
`ha`'s exit code: rpcd makes "No response" of a plug-in that exits otherwise than 0.

Beside the commands: ``schema`` (the table of options, for forms), ``validate`` (what is wrong with
the committed settings), ``service`` (restarts one of the product's own services), ``sync_start``
and ``sync_progress`` (as ``sync``, which answers at the end only), ``pair_import`` (an offer of
another node: says what to compare, and takes it when called again with that fingerprint). Not here:
commands that talk with a person or never end, and deciding who may call what, which is rpcd's ACL.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from controlone_ha.control import arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

EXCLUDED = ("help", "events", "pair_accept", "pair_import", "secret")
PEER_COMMANDS = ("why", "why_not", "plan", "probe", "pair", "unpair")
SERVICES = ("ha", "server", "conference")
PACKAGES = ("ha", "server", "conference", "console")
_KINDS: dict[str, Any] = {arguments.FLAG: False, arguments.TEXT: "", arguments.NUMBER: 0}


def signatures() -> dict[str, dict[str, Any]]:
    """Return what ``list`` prints: method -> parameter -> a value of its type."""
    found: dict[str, dict[str, Any]] = {}
    for name, line in arguments.COMMANDS.items():
        if name in EXCLUDED:
            continue
        options = {option: _KINDS[kind] for option, kind in line.options.items() if kind in _KINDS}
        if name in PEER_COMMANDS:
            options["peer"] = ""
        elif line.most != 0:
            options["arguments"] = []
        found[name] = {**options, "lang": ""}
    found["schema"] = {"package": "", "lang": ""}
    found["validate"] = {"package": ""}
    found["service"] = {"name": "", "action": ""}
    found["sync_start"] = {"item": "", "lang": ""}
    found["pair_import"] = {"offer": "", "fingerprint": ""}
    found["sync_progress"] = {"run": 0, "lang": ""}
    return found


def command_line(method: str, message: dict[str, Any]) -> list[str]:
    """Return the words of `ha` that a call means; raise ``ValueError`` for what is unknown."""
    known = signatures()[method]
    words = [method, "--json"]
    rest: list[str] = []
    for name, value in message.items():
        if name == "ubus_rpc_session" or value is None:
            continue
        if name not in known:
            raise ValueError(f"{method}: unknown parameter {name!r}")
        if name == "arguments":
            if not isinstance(value, list):
                raise ValueError(f"{method}: arguments: expected a list of texts")
            rest += [str(item) for item in value]
        elif name == "peer" and method in PEER_COMMANDS:
            rest += [str(value)] if value else []
        elif isinstance(known[name], bool):
            words += [f"--{name}"] if value else []
        elif value != "":
            words.append(f"--{name}={value}")
    return [*words, "--", *rest]


def call(method: str, message: dict[str, Any]) -> dict[str, Any]:
    """Do what ``call METHOD`` asks and return the answer."""
    if method not in signatures():
        return _failure(2, f"no method {method!r}")
    try:
        if method == "schema":
            return _schema(str(message.get("package") or "ha"), str(message.get("lang") or ""))
        if method == "validate":
            return _validate(str(message.get("package") or "ha"))
        if method == "service":
            return _service(str(message.get("name")), str(message.get("action") or "restart"))
        if method == "pair_import":
            return _pair_import(str(message.get("offer")), str(message.get("fingerprint") or ""))
        if method == "sync_start":
            return _ask("sync", {"item": message.get("item") or None})
        if method == "sync_progress":
            return _ask("sync_progress", {"run": message.get("run")})
        words = command_line(method, message)
    except ValueError as error:
        return _failure(2, str(error))
    from controlone_ha.control.command import main as run_command

    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = run_command(words)
    answer = shaped(method, code, output.getvalue(), errors.getvalue())
    return translated(answer, str(message.get("lang") or ""))


def shaped(method: str, code: int, output: str, errors: str) -> dict[str, Any]:
    """Return a table for ubus from what the command printed."""
    if not output.strip():
        text = errors.strip().removeprefix("ha: ")
        return {} if code == 0 else _failure(code, text)
    # `ha sync` shows its progress, a line each; the last one is the answer.
    answer = json.loads(output.strip().splitlines()[-1] if method == "sync" else output)
    return answer if isinstance(answer, dict) else {method: answer}


_SAID = ("text", "error")
"""Sentences of the synchronisation, which have no code."""


def translated(answer: Any, language: str) -> Any:
    """Return an answer with its sentences in ``language``; unchanged without one, or in English.

    Sentences are the ``text`` (and ``remedy``) of whatever has a ``code``, as in reasons.
    """
    from controlone_ha.control.language import ENGLISH, Texts, choose_language

    chosen = choose_language(language or ENGLISH)
    if chosen == ENGLISH:
        return answer
    texts = Texts(chosen)

    def turned(value: Any) -> Any:
        if isinstance(value, list):
            return [turned(item) for item in value]
        if not isinstance(value, dict):
            return value
        if not isinstance(value.get("code"), str):
            return {
                name: texts.said(item) if name in _SAID and isinstance(item, str) else turned(item)
                for name, item in value.items()
            }
        if "remedy" in value:
            text, remedy = texts.finding(value)
            return {**value, "text": text, "remedy": remedy}
        if "direction" in value:
            return {**value, "text": texts.link(value)}
        return {**value, "text": texts.reason(value)}

    return turned(answer)


def _ask(method: str, params: dict[str, Any]) -> dict[str, Any]:
    from controlone_ha.control.client import Client
    from controlone_ha.errors import ControlOneError

    try:
        client = Client()
        try:
            answer: dict[str, Any] = client.call(method, params)
        finally:
            client.close()
    except ControlOneError as error:
        return _failure(1, str(error))
    return answer


def _pair_import(offer: str, fingerprint: str) -> dict[str, Any]:
    from controlone_ha.control.pairing import take_offer
    from controlone_ha.errors import ControlOneError

    try:
        return take_offer(offer, fingerprint)
    except ControlOneError as error:
        return _failure(1, str(error))


def _failure(code: int, text: str) -> dict[str, Any]:
    return {"error": {"code": code, "text": text}}


def _schema(package: str, language: str) -> dict[str, Any]:
    from controlone_ha.config.schema import SCHEMA
    from controlone_ha.config.validate import expectation
    from controlone_ha.control import options_pt
    from controlone_ha.control.language import ENGLISH, PORTUGUESE, choose_language

    is_portuguese = choose_language(language or ENGLISH) == PORTUGUESE
    if package not in PACKAGES:
        raise ValueError(f"schema: no package {package!r}")
    rows = []
    for row in SCHEMA:
        if row.package == package:
            text, expected = row.text, expectation(row)
            if is_portuguese:
                text, expected = options_pt.text_of(row), options_pt.expected_of(row, expected)
            rows.append(
                {
                    "section": row.section, "name": row.name, "kind": row.kind.value,
                    "default": row.default, "text": text, "expected": expected,
                    "choices": list(row.choices), "minimum": row.minimum, "maximum": row.maximum,
                    "unit": row.unit, "scope": row.scope.value,
                }
            )  # fmt: skip
    return {"package": package, "options": rows}


def _validate(package: str) -> dict[str, Any]:
    from controlone_ha.config.check import problems
    from controlone_ha.paths import node_paths

    if package not in PACKAGES:
        raise ValueError(f"validate: no package {package!r}")
    return {"package": package, "problems": problems(package, node_paths().config_dir)}


def _service(name: str, action: str) -> dict[str, Any]:
    import subprocess

    if name not in SERVICES or action not in ("restart", "reload"):
        raise ValueError(f"service: expected restart or reload of {', '.join(SERVICES)}")
    try:
        done = subprocess.run(
            [f"/etc/init.d/{name}", action], capture_output=True, text=True, timeout=25
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _failure(1, str(error))
    if done.returncode != 0:
        return _failure(done.returncode, done.stderr.strip())
    return {"service": name, "action": action, "text": done.stderr.strip()}


def main(argv: Sequence[str] | None = None) -> int:
    """Answer rpcd; the exit code is 0 whatever the answer says."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["list"]:
        print(json.dumps(signatures()))
        return 0
    if len(words) != 2 or words[0] != "call":
        print("usage: ha list | ha call METHOD", file=sys.stderr)
        return 2
    text = sys.stdin.read()
    try:
        message = json.loads(text) if text.strip() else {}
    except ValueError:
        message = None
    if isinstance(message, dict):
        answer = call(words[1], message)
    else:
        answer = _failure(2, "the message is no JSON object")
    sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
