"""`ha keys`, `ha pair` and its parts, `ha unpair`: trust, seen and changed by a person.

The work is done in ``controlone_ha.peers``, which is imported only here and needs the libraries of
the link; here are the questions to the person and what is shown. The daemon is told afterwards, so
that no restart is needed. Passwords are read from the terminal only.
"""

from __future__ import annotations

import os
import sys

from controlone_ha.control import reports
from controlone_ha.control.arguments import UsageError
from controlone_ha.control.client import ApiError, Client, DaemonError
from controlone_ha.control.terminal import DONE, FAILED, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from controlone_ha.config.settings import HaSettings
    from controlone_ha.control.arguments import Request
    from controlone_ha.control.reports import View
    from controlone_ha.peers.pair import HostKeyQuestion, OwnSide, Paired
    from controlone_ha.peers.pins import Pin


GRACE_HOURS = 24.0


def run(request: Request, terminal: Terminal, view: View) -> int:
    """Run one of these commands and return its exit code; raise ``ControlOneError``."""
    _find_libraries()
    import logging

    logging.basicConfig(format="ha: %(message)s", level=logging.WARNING)
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its tracebacks tell a person nothing
    if request.command == "keys":
        if not request.arguments:
            return _keys(terminal, view)
        orders = {"new": _new_keys, "rotate": _rotate_keys}
        if request.arguments[0] not in orders:
            raise UsageError("error.keys_order", word=request.arguments[0])
        return orders[request.arguments[0]](request, terminal)
    handlers = {
        "secret": _secret,
        "pair": _pair,
        "pair_accept": _accept,
        "pair_export": _export,
        "pair_import": _import,
        "unpair": _unpair,
    }
    return handlers[request.command](request, terminal)


def _find_libraries() -> None:
    if "site" not in sys.modules:
        # The shell entry starts Python without `site` (speed); libraries may need its paths.
        import site

        site.main()


def _settings() -> HaSettings:
    from controlone_ha.config.settings import load_ha
    from controlone_ha.paths import node_paths

    return load_ha(node_paths().config_dir)


def _own_side(settings: HaSettings) -> OwnSide:
    from controlone_ha.paths import node_paths
    from controlone_ha.peers.pair import OwnSide

    return OwnSide(
        name=settings.name,
        paths=node_paths(),
        authorized_keys=settings.authorized_keys or None,
        addresses=[settings.address] if settings.address else [],
        ssh_port=settings.ssh_port,
    )


def _pair(request: Request, terminal: Terminal) -> int:
    """Log in to the peer and pair both sides."""
    from pathlib import Path

    from controlone_ha.peers.pair import Login, pair_with

    settings = _settings()
    options = request.options

    def confirm(question: HostKeyQuestion) -> bool:
        text = terminal.texts(
            "pair.host_key",
            host=question.host,
            port=question.port,
            fingerprint=question.fingerprint,
            kind=question.kind,
        )
        return _confirm(text, terminal)

    login = Login(
        identity_files=[Path(options["identity"])] if options.get("identity") else [],
        password=_password,
        confirm=confirm,
        fingerprint=options.get("fingerprint", ""),
        accept_host_key=bool(options.get("accept_host_key")),
    )
    target = request.arguments[0]
    known = {peer.name: peer for peer in settings.peers}.get(target)
    if known is not None and known.address != target:
        target = f"{known.address}:{known.ssh_port}" if known.ssh_port != 22 else known.address
    return _paired(pair_with(target, _own_side(settings), login), settings, terminal)


def _password(prompt: str) -> str | None:
    from getpass import getpass

    if not sys.stdin.isatty():
        return None
    try:
        return getpass(prompt)
    except EOFError:
        return None


def _confirm(text: str, terminal: Terminal) -> bool:
    """Ask the person at the terminal; False where there is none."""
    sys.stderr.write(f"{text}\n{terminal.texts('pair.confirm')} ")
    sys.stderr.flush()
    if not sys.stdin.isatty():
        sys.stderr.write("\n")
        return False
    return sys.stdin.readline().strip().lower() in terminal.texts("pair.yes").split()


def _accept(request: Request, terminal: Terminal) -> int:
    """The other side of ``pair``: take the offer on stdin, answer with ours on stdout."""
    from controlone_ha.peers.pair import accept_offer

    settings = _settings()
    offer, paired = accept_offer(
        sys.stdin.read(),
        _own_side(settings),
        ssh_connection=os.environ.get("SSH_CONNECTION", ""),
    )
    tell_daemon()
    if paired.replaced is not None:
        terminal.complain(_replaced(paired.peer, paired.replaced, terminal))
    terminal.write(offer)
    return DONE


def _export(request: Request, terminal: Terminal) -> int:
    from controlone_ha.peers.pair import export_offer

    offer, fingerprint = export_offer(_own_side(_settings()))
    if terminal.is_json:
        terminal.write_json({"offer": offer, "fingerprint": fingerprint})
        return DONE
    terminal.write(offer)
    sys.stdout.flush()
    terminal.complain(terminal.texts("pair.exported", fingerprint=fingerprint))
    return DONE


def _import(request: Request, terminal: Terminal) -> int:
    from controlone_ha.peers.pair import describe_offer, import_offer

    settings = _settings()
    name = request.arguments[0]
    if name == "-":
        text = sys.stdin.read()
    else:
        try:
            with open(name, encoding="utf-8") as file:
                text = file.read()
        except (OSError, ValueError) as error:
            terminal.complain(f"{name}: {getattr(error, 'strerror', None) or error}")
            return FAILED
    fingerprint = request.options.get("fingerprint")
    if not fingerprint:
        pin, fingerprint = describe_offer(text)
        question = terminal.texts("pair.offer", name=pin.name, fingerprint=fingerprint)
        if name == "-" or not _confirm(question, terminal):
            terminal.complain(terminal.texts("pair.not_confirmed", fingerprint=fingerprint))
            return FAILED
    paired = import_offer(text, _own_side(settings), fingerprint=fingerprint)
    return _paired(paired, settings, terminal)


def take_offer(offer: str, fingerprint: str) -> dict[str, Any]:
    """Take the offer of another node for a page: without ``fingerprint`` only say whose it is and
    what a person has to compare. Raises ``ControlOneError``.
    """
    _find_libraries()
    from controlone_ha.peers.pair import describe_offer, import_offer

    pin, found = describe_offer(offer)
    answer = {
        "name": pin.name,
        "addresses": list(pin.addresses),
        "key": pin.key_fingerprint,
        "fingerprint": found,
    }
    if not fingerprint:
        return {**answer, "paired": False}
    settings = _settings()
    paired = import_offer(offer, _own_side(settings), fingerprint=fingerprint)
    names = {pin.name, *pin.addresses}
    return {
        **answer,
        "paired": True,
        "replaced": paired.replaced.key_fingerprint if paired.replaced else None,
        "listed": any(peer.name in names or peer.address in names for peer in settings.peers),
        "daemon_told": tell_daemon(),
    }


def _paired(paired: Paired, settings: HaSettings, terminal: Terminal) -> int:
    told = tell_daemon()
    pin = paired.peer
    names = {pin.name, *pin.addresses}
    listed = any(peer.name in names or peer.address in names for peer in settings.peers)
    if terminal.is_json:
        terminal.write_json(
            {
                "paired": pin.name,
                "addresses": list(pin.addresses),
                "key": pin.key_fingerprint,
                "replaced": paired.replaced.key_fingerprint if paired.replaced else None,
                "listed": listed,
                "daemon_told": told,
            }
        )
        return DONE
    if paired.said:
        terminal.complain(paired.said.removeprefix("ha: "))
    terminal.write(
        terminal.texts(
            "pair.done",
            name=pin.name,
            address=pin.addresses[0] if pin.addresses else "-",
            key=pin.key_fingerprint,
        )
    )
    if paired.replaced is not None:
        terminal.write(_replaced(pin, paired.replaced, terminal))
    if not listed:
        terminal.write(terminal.texts("pair.not_listed", name=pin.name))
    return DONE


def _replaced(pin: Pin, before: Pin, terminal: Terminal) -> str:
    return terminal.texts("pair.replaced", name=pin.name, key=before.key_fingerprint)


def _keys(terminal: Terminal, view: View) -> int:
    from controlone_ha.errors import TrustError
    from controlone_ha.paths import node_paths
    from controlone_ha.peers import rotation
    from controlone_ha.peers.keys import load_identity
    from controlone_ha.peers.trust import TrustStore

    paths = node_paths()
    keys: dict[str, Any] = {"own": None, "pinned": []}
    try:
        identity = load_identity(paths)
    except TrustError as error:
        terminal.complain(str(error))
    else:
        keys["own"] = {
            "key": identity.key_fingerprint,
            "certificate": identity.certificate_sha256,
            "host_keys": _own_host_keys(),
        }
        change = rotation.load(paths)
        if change is not None:
            keys["own"]["other"] = {
                "phase": change.phase,
                "key": change.other.key_fingerprint,
                "until": change.until,
            }
    store = TrustStore(paths.pins_file)
    keys["expelled"] = [record.as_json() for record in store.revoked().values()]
    for pin in store.pins().values():
        keys["pinned"].append(
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
        terminal.write_json(keys)
    else:
        terminal.write(reports.render_keys(keys, view))
    return DONE if keys["own"] else FAILED


def _new_keys(request: Request, terminal: Terminal) -> int:
    """Give this node a new key and certificate: it is a stranger to its peers from then on."""
    from controlone_ha.peers import rotation
    from controlone_ha.peers.keys import renew_identity

    own = _own_side(_settings())
    question = terminal.texts("keys.new_question", name=own.name)
    if not request.options.get("yes") and not _confirm(question, terminal):
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
    own = _own_side(_settings())
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
        return [ssh_fingerprint(line) for line in own_host_keys(_settings().ssh_port)]
    except ControlOneError:
        return []  # the settings or a key cannot be read: `ha check` tells


def _unpair(request: Request, terminal: Terminal) -> int:
    """Expel a node's key from the whole cluster, or (``--here``) forget it on this node alone."""
    from controlone_ha.control.commands import who
    from controlone_ha.peers import authorized
    from controlone_ha.peers.trust import TrustStore

    name = request.arguments[0]
    own = _own_side(_settings())
    store = TrustStore(own.paths.pins_file)
    record = None
    if request.options.get("here"):
        is_known = store.unpin(name)
    else:
        why = str(request.options.get("reason") or "")
        record = store.expel(name, node=own.name, by=who(), why=why)
        is_known = record is not None
    if not is_known:
        terminal.complain(terminal.texts("pair.unknown", name=name))
        return FAILED
    authorized.write(
        authorized.authorized_keys_file(own.authorized_keys),
        store.pins(),
        authorized.bridge_command(own.paths.peer_socket),
    )
    told = tell_daemon()
    if terminal.is_json:
        expelled = record.as_json() if record is not None else None
        terminal.write_json({"unpaired": name, "expelled": expelled, "daemon_told": told})
    elif record is None:
        terminal.write(terminal.texts("pair.unpaired", name=name))
    else:
        terminal.write(terminal.texts("pair.expelled", name=name, key=record.key))
    return DONE


def _secret(request: Request, terminal: Terminal) -> int:
    """Give this node a new secret, and accept the old one for a while: `ha secret rotate`."""
    import time

    from controlone_ha.paths import node_paths
    from controlone_ha.peers.secret import save_previous, weak_secret_reason
    from controlone_ha.uci import load, save

    if request.arguments[0] != "rotate":
        raise UsageError("error.secret_order", word=request.arguments[0])
    hours = float(request.options.get("grace") or GRACE_HOURS)
    fresh = _password(terminal.texts("secret.ask") + " ") if sys.stdin.isatty() else None
    fresh = fresh if fresh is not None else sys.stdin.readline().rstrip("\n")
    settings = _settings()
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


def tell_daemon() -> bool:
    """Tell the daemon that the pins have changed; False when it does not run."""
    try:
        client = Client()
        try:
            client.call("trust_changed")
        finally:
            client.close()
    except (DaemonError, ApiError):
        return False
    return True
