"""Which lines of mongod.conf are wrong, and what the lab's mongod is started with."""

from __future__ import annotations

from typing import Any

import pytest

from controlone_ha.probes.database import DatabaseTarget
from controlone_ha.sync.database.options import command_line, lines, wrong_lines, yaml
from controlone_ha.sync.database.settings import Settings, settings_from_json

WANTED = lines(node_pem="/s/node.pem", pins_pem="/s/pins.pem", keyfile="/s/keyfile")


def running(**changed: Any) -> dict[str, Any]:
    """Return what a mongod that is right says of itself (getCmdLineOpts), changed by path."""
    parsed: dict[str, Any] = {
        "net": {
            "bindIp": "0.0.0.0",
            "tls": {
                "mode": "requireTLS",
                "certificateKeyFile": "/s/node.pem",
                "CAFile": "/s/pins.pem",
                "disabledProtocols": "TLS1_0,TLS1_1",
            },
        },
        "replication": {"replSetName": "ha", "oplogSizeMB": 990},
        "security": {"authorization": "enabled", "keyFile": "/s/keyfile"},
        "storage": {"journal": {"commitIntervalMs": 5}},
    }
    for path, value in changed.items():
        *sections, name = path.split("__")
        at = parsed
        for section in sections:
            at = at[section]
        at[name] = value
    return parsed


def test_a_mongod_that_is_right_has_no_wrong_lines() -> None:
    assert wrong_lines(WANTED, running()) == []
    by_arguments = running(replication={"replSet": "ha"})
    assert wrong_lines(WANTED, by_arguments) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"net__bindIp": "127.0.0.1"}, "net.bindIp: got 127.0.0.1, expected 0.0.0.0"),
        ({"net__tls": {}}, "net.tls.mode: got nothing, expected requireTLS"),
        ({"replication": {}}, "replication.replSetName: got nothing, expected ha"),
        ({"storage": {}}, "storage.journal.commitIntervalMs: got nothing, expected 5"),
        ({"security": {}}, "security.keyFile: got nothing, expected /s/keyfile"),
        ({"replication__oplogSizeMB": 50}, "replication.oplogSizeMB: got 50, expected 990"),
        ({"net__port": 27018}, "net.port: got 27018, expected 27017"),
    ],
)
def test_what_is_wrong_is_told_with_the_line_that_is_right(
    changed: dict[str, Any], sentence: str
) -> None:
    found = [item.text() for item in wrong_lines(WANTED, running(**changed))]
    assert any(text.startswith(sentence) for text in found), found


def test_the_same_table_gives_arguments_and_configuration() -> None:
    words = command_line(WANTED)
    assert words[words.index("--tlsMode") + 1] == "requireTLS"
    assert words[words.index("--auth") + 1].startswith("--")
    assert "authenticationMechanisms=SCRAM-SHA-256" in words
    text = yaml(WANTED)
    assert "  tls:\n    mode: requireTLS\n" in text and "replSetName: ha" in text


def test_settings_survive_their_way_through_json_and_hide_the_password() -> None:
    target = DatabaseTarget(host="10.0.0.1", user="controlone-ha", password="secret-one")
    settings = Settings(
        node="a", own=target, peers={"b": target}, urgent=("app.calls",), reader_password="hidden"
    )
    assert settings_from_json(settings.to_json()) == settings
    assert "hidden" not in repr(settings) and "secret-one" not in repr(settings)
