"""`ha pair` and its parts, `ha unpair`, and the way to `ha keys` and `ha secret`: trust.

The work is done in ``controlone_ha.peers``, which is imported only here and needs the libraries of
the link; here are the questions to the person and what is shown. The daemon is told afterwards, so
that no restart is needed. Passwords are read from the terminal only.
"""

from __future__ import annotations

import os
import sys

from controlone_ha.control.keys import keys, rotate_secret
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

    from controlone_ha.config.settings import HaSettings
    from controlone_ha.control.arguments import Request
    from controlone_ha.control.reports import View
    from controlone_ha.peers.pair import HostKeyQuestion, Paired
    from controlone_ha.peers.pins import Pin


def run(request: Request, terminal: Terminal, view: View) -> int:
    """Run one of these commands and return its exit code; raise ``ControlOneError``."""
    _find_libraries()
    import logging

    logging.basicConfig(format="ha: %(message)s", level=logging.WARNING)
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its tracebacks tell a person nothing
    if request.command == "keys":
        return keys(request, terminal, view)
    handlers = {
        "secret": rotate_secret,
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


def _pair(request: Request, terminal: Terminal) -> int:
    """Log in to the peer and pair both sides."""
    from pathlib import Path

    from controlone_ha.peers.pair import Login, pair_with

    settings = own_settings()
    options = request.options

    def confirm(question: HostKeyQuestion) -> bool:
        text = terminal.texts(
            "pair.host_key",
            host=question.host,
            port=question.port,
            fingerprint=question.fingerprint,
            kind=question.kind,
        )
        return confirmed(text, terminal)

    login = Login(
        identity_files=[Path(options["identity"])] if options.get("identity") else [],
        password=password_of,
        confirm=confirm,
        fingerprint=options.get("fingerprint", ""),
        accept_host_key=bool(options.get("accept_host_key")),
    )
    target = request.arguments[0]
    known = {peer.name: peer for peer in settings.peers}.get(target)
    if known is not None and known.address != target:
        target = f"{known.address}:{known.ssh_port}" if known.ssh_port != 22 else known.address
    return _paired(pair_with(target, own_side(settings), login), settings, terminal)


def _accept(request: Request, terminal: Terminal) -> int:
    """The other side of ``pair``: take the offer on stdin, answer with ours on stdout."""
    from controlone_ha.peers.pair import accept_offer

    settings = own_settings()
    offer, paired = accept_offer(
        sys.stdin.read(),
        own_side(settings),
        ssh_connection=os.environ.get("SSH_CONNECTION", ""),
    )
    tell_daemon()
    if paired.replaced is not None:
        terminal.complain(_replaced(paired.peer, paired.replaced, terminal))
    terminal.write(offer)
    return DONE


def _export(request: Request, terminal: Terminal) -> int:
    from controlone_ha.peers.pair import export_offer

    offer, fingerprint = export_offer(own_side(own_settings()))
    if terminal.is_json:
        terminal.write_json({"offer": offer, "fingerprint": fingerprint})
        return DONE
    terminal.write(offer)
    sys.stdout.flush()
    terminal.complain(terminal.texts("pair.exported", fingerprint=fingerprint))
    return DONE


def _import(request: Request, terminal: Terminal) -> int:
    from controlone_ha.peers.pair import describe_offer, import_offer

    settings = own_settings()
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
        if name == "-" or not confirmed(question, terminal):
            terminal.complain(terminal.texts("pair.not_confirmed", fingerprint=fingerprint))
            return FAILED
    paired = import_offer(text, own_side(settings), fingerprint=fingerprint)
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
    settings = own_settings()
    paired = import_offer(offer, own_side(settings), fingerprint=fingerprint)
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


def _unpair(request: Request, terminal: Terminal) -> int:
    """Expel a node's key from the whole cluster, or (``--here``) forget it on this node alone."""
    from controlone_ha.control.commands import who
    from controlone_ha.peers import authorized
    from controlone_ha.peers.trust import TrustStore

    name = request.arguments[0]
    own = own_side(own_settings())
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
