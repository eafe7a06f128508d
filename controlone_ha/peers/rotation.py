"""The files of a node that changes its key without losing a link: next, present and last one.

Theory of operation. ``begin`` makes ``next.key`` and ``next.crt``; the peers are told and accept
both. ``use`` makes that pair the present one and keeps the last as ``previous.key`` and
``previous.crt``, which peers that were away are still dialed with. ``end`` removes the last one.
``rotation.json`` says how far it is. Every step is made under the lock of the identity and in an
order that a crash may interrupt: ``mend``, called before the identity is read, completes a step
whose certificate has not followed its key.

Not here: when to take the next step (``links``), what peers make of it (``succession``).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlone_ha.errors import RefusedError, TrustError
from controlone_ha.paths import NodePaths
from controlone_ha.peers.files import locked, private_directory, write_atomically
from controlone_ha.peers.keys import (
    LOCK,
    Identity,
    load_identity,
    make_identity,
    mend,
)

ANNOUNCED, USED = "announced", "used"
STATE = "rotation.json"
FORMER = "former-keys.json"
LONGEST_GRACE = 31 * 86400.0


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """A change of key that goes on. ``other`` is the next identity (``announced``) or the last one
    (``used``); ``since`` and ``until`` are seconds since 1970.
    """

    phase: str
    other: Identity
    since: float
    until: float


def next_paths(paths: NodePaths) -> tuple[Path, Path]:
    """Return where the next key and certificate lie until they are used."""
    return paths.state_dir / "next.key", paths.state_dir / "next.crt"


def previous_paths(paths: NodePaths) -> tuple[Path, Path]:
    """Return where the last key and certificate lie while they count."""
    return paths.state_dir / "previous.key", paths.state_dir / "previous.crt"


def begin(paths: NodePaths, name: str, *, now: float, until: float) -> Rotation:
    """Make the next key and certificate; raise ``RefusedError`` while a change goes on."""
    private_directory(paths.state_dir)
    with locked(paths.state_dir / LOCK):
        if _state(paths) is not None:
            raise RefusedError("the key is being changed already; see `ha keys`")
        key, certificate = next_paths(paths)
        key.unlink(missing_ok=True)
        certificate.unlink(missing_ok=True)
        make_identity(key, certificate, name)
        _write(paths, {"phase": ANNOUNCED, "since": now, "until": until})
    found = load(paths)
    assert found is not None, "just begun"
    return found


def use(paths: NodePaths) -> None:
    """Make the next key and certificate the present ones. Repeating it changes nothing."""
    with locked(paths.state_dir / LOCK):
        state = _state(paths)
        if state is None or state["phase"] != ANNOUNCED:
            return
        key, certificate = next_paths(paths)
        last_key, last_certificate = previous_paths(paths)
        if key.exists():
            write_atomically(last_key, paths.key_file.read_bytes(), mode=0o600)
            write_atomically(last_certificate, paths.certificate_file.read_bytes(), mode=0o644)
            last = load_identity(paths).key_fingerprint
            kept = [*(item for item in former_keys(paths) if item != last), last][-16:]
            write_atomically(paths.state_dir / FORMER, json.dumps(kept).encode(), mode=0o600)
            os.replace(key, paths.key_file)
        mend(paths)
        _write(paths, {**state, "phase": USED})
        certificate.unlink(missing_ok=True)


def end(paths: NodePaths) -> None:
    """Forget the last key. Repeating it changes nothing."""
    with locked(paths.state_dir / LOCK):
        for path in (*previous_paths(paths), *next_paths(paths)):
            path.unlink(missing_ok=True)
        (paths.state_dir / STATE).unlink(missing_ok=True)


def forget_former(paths: NodePaths) -> None:
    """Forget which keys this node had before: it becomes another one."""
    (paths.state_dir / FORMER).unlink(missing_ok=True)


def load(paths: NodePaths) -> Rotation | None:
    """Return the change of key that goes on, None without one; raise ``TrustError``."""
    state = _state(paths)
    if state is not None and state["phase"] == ANNOUNCED and not next_paths(paths)[0].exists():
        use(paths)  # interrupted: the key is in place already
        state = _state(paths)
    if state is None:
        return None
    files = next_paths(paths) if state["phase"] == ANNOUNCED else previous_paths(paths)
    return Rotation(
        phase=state["phase"],
        other=load_identity(paths, *files),
        since=float(state["since"]),
        until=float(state["until"]),
    )


def former_keys(paths: NodePaths) -> tuple[str, ...]:
    """Return the fingerprints of the keys that this node had before, the oldest first."""
    try:
        raw = json.loads((paths.state_dir / FORMER).read_bytes())
    except (OSError, ValueError):
        return ()
    is_right = isinstance(raw, list) and all(isinstance(item, str) for item in raw)
    return tuple(raw) if is_right else ()


def own_certificates(paths: NodePaths) -> list[str]:
    """Return the certificates (PEM) of this node that count: the present one, and the other one
    while the key is being changed. Standard library only; raises ``OSError``.
    """
    found = [paths.certificate_file.read_text(encoding="ascii")]
    for _key, certificate in (next_paths(paths), previous_paths(paths)):
        if certificate.exists():
            found.append(certificate.read_text(encoding="ascii"))
    return found


def _state(paths: NodePaths) -> dict[str, Any] | None:
    file = paths.state_dir / STATE
    try:
        raw = json.loads(file.read_bytes())
        state = {
            "phase": str(raw["phase"]),
            "since": float(raw["since"]),
            "until": float(raw["until"]),
        }
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrustError(f"{file}: {error}; remove it to end the change of key") from error
    if state["phase"] not in (ANNOUNCED, USED):
        raise TrustError(f"{file}: no phase {state['phase']!r}; remove it to end the change of key")
    return state


def _write(paths: NodePaths, state: dict[str, Any]) -> None:
    write_atomically(paths.state_dir / STATE, json.dumps(state).encode() + b"\n", mode=0o600)
