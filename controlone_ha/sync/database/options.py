"""How a node's mongod has to be started, and what of a running one is not so. Pure.

One table: it gives the lines of mongod.conf, the command line (the lab's), and the comparison with
what a running mongod says of itself (getCmdLineOpts).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SET_NAME = "ha"
OPLOG_MB = 990
MINIMUM_OPLOG_MB = 256
JOURNAL_MS = 5
LONGEST_JOURNAL_MS = 20


@dataclass(frozen=True, kw_only=True)
class Line:
    """One setting: where it stands in mongod.conf, what it should be and why."""

    path: str
    value: Any
    why: str
    flag: str = ""
    is_needed: bool = True

    def yaml(self) -> str:
        """Return ``path: value`` as a person writes it."""
        return f"{self.path}: {_shown(self.value)}"


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A setting of a running mongod that is not as it has to be."""

    line: Line
    got: Any

    def text(self) -> str:
        """Return one sentence."""
        got = "nothing" if self.got is None else _shown(self.got)
        return f"{self.line.path}: got {got}, expected {_shown(self.line.value)} ({self.line.why})"


def lines(*, node_pem: str, pins_pem: str, keyfile: str, port: int = 27017) -> list[Line]:
    """Return the settings of a node's mongod."""
    return [
        Line(path="net.port", value=port, why="peers look for it there", flag="--port"),
        Line(
            path="net.bindIp",
            value="0.0.0.0",
            why="peers read it; TLS and login guard it",
            flag="--bind_ip",
        ),
        Line(
            path="net.tls.mode", value="requireTLS", why="nothing goes in clear", flag="--tlsMode"
        ),
        Line(
            path="net.tls.certificateKeyFile",
            value=node_pem,
            why="the key that peers have pinned",
            flag="--tlsCertificateKeyFile",
        ),
        Line(
            path="net.tls.CAFile",
            value=pins_pem,
            why="only pinned nodes may connect",
            flag="--tlsCAFile",
        ),
        Line(
            path="net.tls.disabledProtocols",
            value="TLS1_0,TLS1_1",
            why="they are broken",
            flag="--tlsDisabledProtocols",
            is_needed=False,
        ),
        Line(path="security.keyFile", value=keyfile, why="login is required", flag="--keyFile"),
        Line(
            path="security.authorization", value="enabled", why="login is required", flag="--auth"
        ),
        Line(
            path="replication.replSetName",
            value=SET_NAME,
            why="only a replica set, of one member, has change streams",
            flag="--replSet",
        ),
        Line(
            path="replication.oplogSizeMB",
            value=OPLOG_MB,
            why="times of changes are known as far as the oplog reaches back",
            flag="--oplogSize",
            is_needed=False,
        ),
        Line(
            path="storage.journal.commitIntervalMs",
            value=JOURNAL_MS,
            why="change streams wait for the journal: 100 ms make each change 100 ms late",
            flag="--journalCommitInterval",
            is_needed=False,
        ),
        Line(
            path="setParameter.authenticationMechanisms",
            value="SCRAM-SHA-256",
            why="the strongest login by password",
            flag="--setParameter",
            is_needed=False,
        ),
    ]


def command_line(settings: list[Line]) -> list[str]:
    """Return the arguments of mongod for these settings."""
    words: list[str] = []
    for line in settings:
        if line.path.startswith("setParameter."):
            words += [line.flag, f"{line.path.partition('.')[2]}={line.value}"]
        elif line.flag == "--auth":
            words.append(line.flag)
        else:
            words += [line.flag, str(line.value)]
    return words


def wrong_lines(settings: list[Line], parsed: Mapping[str, Any]) -> list[Wrong]:
    """Compare with ``parsed`` of getCmdLineOpts; return what differs in a way that matters."""
    found = []
    for line in settings:
        got = _at(parsed, line.path)
        if line.path == "replication.replSetName" and got is None:
            got = _at(parsed, "replication.replSet")  # its name when given as an argument
        if not _is_right(line, got):
            found.append(Wrong(line=line, got=got))
    return found


def _is_right(line: Line, got: Any) -> bool:
    match line.path:
        case "replication.replSetName":
            return bool(got)
        case "net.bindIp":
            return isinstance(got, str) and bool({"0.0.0.0", "*"} & set(got.split(",")))
        case "replication.oplogSizeMB":
            return got is None or int(got) >= MINIMUM_OPLOG_MB
        case "storage.journal.commitIntervalMs":
            return got is not None and int(got) <= LONGEST_JOURNAL_MS
        case "net.port":
            return int(got if got is not None else 27017) == int(line.value)
        case "net.tls.disabledProtocols" | "setParameter.authenticationMechanisms":
            return got is None or set(str(line.value).split(",")) <= set(str(got).split(","))
        case "security.authorization":
            # A keyfile switches it on.
            return got in (None, "enabled")
        case _:
            return bool(got == line.value)


def _at(parsed: Mapping[str, Any], path: str) -> Any:
    value: Any = parsed
    for word in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(word)
    return value


def yaml(settings: list[Line]) -> str:
    """Return the settings as mongod.conf, without what the file had besides."""
    tree: dict[str, Any] = {}
    for line in settings:
        at = tree
        *sections, name = line.path.split(".")
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = line.value
    return "\n".join(_yaml(tree, 0))


def _yaml(tree: Mapping[str, Any], depth: int) -> list[str]:
    found = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found += ["  " * depth + f"{name}:", *_yaml(value, depth + 1)]
        else:
            found.append("  " * depth + f"{name}: {_shown(value)}")
    return found


def _shown(value: Any) -> str:
    return str(value)
