"""`ha keys` and `ha secret`: what a node is known by, and changing it."""

from __future__ import annotations

import sys

from controlone_ha.control import reports
from controlone_ha.control.arguments import UsageError
from controlone_ha.control.client import Client, DaemonError
from controlone_ha.control.own_side import (
    confirmed,
    own_settings,
    own_side,
    password_of,
    tell_daemon,
)
from controlone_ha.control.terminal import DONE, FAILED, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from controlone_ha.control.arguments import Request
    from controlone_ha.control.reports import View


GRACE_HOURS = 24.0


def keys(request: Request, terminal: Terminal, view: View) -> int:
    """Show fingerprints and expiry, or carry out `new` or `rotate`; return the exit code."""
    if not request.arguments:
        return _show(terminal, view)
    orders = {"new": _new_keys, "rotate": _rotate_keys}
    if request.arguments[0] not in orders:
        raise UsageError("error.keys_order", word=request.arguments[0])
    return orders[request.arguments[0]](request, terminal)


def _show(terminal: Terminal, view: View) -> int:
    from controlone_ha.errors import TrustError
    from controlone_ha.paths import node_paths
    from controlone_ha.peers import rotation
    from controlone_ha.peers.keys import load_identity
    from controlone_ha.peers.trust import TrustStore

    paths = node_paths()
    known: dict[str, Any] = {"own": None, "pinned": []}
    try:
        identity = load_identity(paths)
    except TrustError as error:
        terminal.complain(str(error))
    else:
        known["own"] = {
            "key": identity.key_fingerprint,
            "certificate": identity.certificate_sha256,
            "host_keys": _own_host_keys(),
        }
        change = rotation.load(paths)
        if change is not None:
            known["own"]["other"] = {
                "phase": change.phase,
                "key": change.other.key_fingerprint,
                "until": change.until,
            }
    store = TrustStore(paths.pins_file)
    known["expelled"] = [record.as_json() for record in store.revoked().values()]
    for pin in store.pins().values():
        known["pinned"].append(
            {
                "name": pin.name,
                "addresses": list(pin.addresses),
                "key": pin.key_fingerprint,
                "certificate": pin.certificate_sha256,
                "host_keys": list(pin.host_key_fingerprints),
                "added": pin.added,
                **(
                    {"other": {"key": pin.key_fingerprints[1], "until": pin.until}}
                    if pin.other_key
                    else {}
                ),
            }
        )
    if terminal.is_json:
        terminal.write_json(known)
    else:
        terminal.write(reports.render_keys(known, view))
    return DONE if known["own"] else FAILED


def _new_keys(request: Request, terminal: Terminal) -> int:
    """Give this node a new key and certificate: it is a stranger to its peers from then on."""
    from controlone_ha.peers import rotation
    from controlone_ha.peers.keys import renew_identity

    own = own_side(own_settings())
    question = terminal.texts("keys.new_question", name=own.name)
    if not request.options.get("yes") and not confirmed(question, terminal):
        terminal.complain(terminal.texts("keys.new_not_confirmed"))
        return FAILED
    rotation.end(own.paths)
    rotation.forget_former(own.paths)
    identity = renew_identity(own.paths, own.name)
    if terminal.is_json:
        terminal.write_json({"key": identity.key_fingerprint})
    else:
        terminal.write(terminal.texts("keys.new_done", key=identity.key_fingerprint))
    return DONE


def _rotate_keys(request: Request, terminal: Terminal) -> int:
    """Change this node's key without losing a link: the old one counts for a while, too."""
    import time

    from controlone_ha.peers.rotation import LONGEST_GRACE, begin

    hours = float(request.options.get("grace") or GRACE_HOURS)
    if hours * 3600 > LONGEST_GRACE:
        raise UsageError("error.number", word="--grace", value=f"{hours:g}")
    own = own_side(own_settings())
    now = time.time()
    change = begin(own.paths, own.name, now=now, until=now + hours * 3600)
    told = tell_daemon()
    key = change.other.key_fingerprint
    if terminal.is_json:
        terminal.write_json({"key": key, "until": change.until, "daemon_told": told})
    else:
        terminal.write(terminal.texts("keys.rotating", key=key, hours=f"{hours:g}"))
    return DONE


def _own_host_keys() -> list[str]:
    """Return the fingerprints of this node's SSH server; none when it cannot be asked."""
    from controlone_ha.errors import ControlOneError
    from controlone_ha.peers.hostkeys import own_host_keys
    from controlone_ha.peers.keys import ssh_fingerprint

    try:
        return [ssh_fingerprint(line) for line in own_host_keys(own_settings().ssh_port)]
    except ControlOneError:
        return []  # the settings or a key cannot be read: `ha check` tells


def rotate_secret(request: Request, terminal: Terminal) -> int:
    """Give this node a new secret, and accept the old one for a while: `ha secret rotate`."""
    import time

    from controlone_ha.paths import node_paths
    from controlone_ha.peers.secret import save_previous, weak_secret_reason
    from controlone_ha.uci import load, save

    if request.arguments[0] != "rotate":
        raise UsageError("error.secret_order", word=request.arguments[0])
    hours = float(request.options.get("grace") or GRACE_HOURS)
    fresh = password_of(terminal.texts("secret.ask") + " ") if sys.stdin.isatty() else None
    fresh = fresh if fresh is not None else sys.stdin.readline().rstrip("\n")
    settings = own_settings()
    if not fresh or fresh == settings.secret:
        terminal.complain(terminal.texts("secret.same"))
        return FAILED
    if weak_secret_reason(fresh) is not None:
        terminal.complain(str(weak_secret_reason(fresh)))
    paths = node_paths()
    save_previous(paths.state_dir, settings.secret, time.time() + hours * 3600)
    package = load(paths.config_dir / "ha")
    section = package.section("default")
    assert section is not None, "the settings were read from it"
    section.set("secret", fresh)
    save(paths.config_dir / "ha", package)
    try:
        client = Client(timeout=30.0)
        try:
            client.call("reload")
        finally:
            client.close()
    except DaemonError as error:
        terminal.daemon_down(error)  # it reads both when it starts
    if terminal.is_json:
        terminal.write_json({"rotated": True, "old_accepted_hours": hours})
    else:
        terminal.write(terminal.texts("secret.done", hours=f"{hours:g}"))
    return DONE
