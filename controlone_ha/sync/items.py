"""Items: which files are synchronised, what is told when they change, and what never leaves a node.

An item is a set of files by paths (files, directories, patterns), minus excludes. A file has the
same absolute path on every node; a node takes and gives only what its own items cover, so no peer
writes anywhere else. Nothing here touches the disk.
"""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

NODE_LOCAL: Final = frozenset(
    (
        "ha", "network", "system", "dropbear", "sshd", "wireless", "firewall", "dhcp", "fstab",
        "luci", "rpcd", "uhttpd", "ubootenv", "ucitrack", "attendedsysupgrade", "openssl",
        "timeserver", "snmpd", "mwan3", "openvpn", "wireguard", "ddns",
    )
)  # fmt: skip
"""UCI files of ``config`` that describe one machine: never sent, never taken."""

ITEM_NAMES: Final = ("config", "jobs", "licences", "recordings", "sounds")
LICENCES: Final = "/etc/controlone.d/licences"
MAX_PATH: Final = 1024

_TEMPORARY_ENDS: Final = ("~", "-opkg", ".apk-new", ".apk-old", ".swp", ".tmp")


class BadPathError(ValueError):
    """A path that cannot be synchronised; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file set.

    ``paths``: absolute files, directories (everything below) or patterns (``*`` stays inside one
    directory). ``excludes``: patterns of names, or of whole paths when they begin with a slash.
    ``direction``: ``both``, ``send``, ``receive`` or ``none``. ``is_uci``: each file is a UCI
    package, checked before it goes anywhere. ``reload``: command line for `sh`, run once for each
    batch; ``follows_state``: also at every change of the node's state. ``max_age`` in days and
    ``max_size`` in MB are the retention on this node; 0: none.
    """

    name: str
    paths: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    reload: str = ""
    direction: str = "both"
    is_uci: bool = False
    follows_state: bool = False
    max_age: int = 0
    max_size: int = 0

    @property
    def sends(self) -> bool:
        """Whether changes of this node go to peers."""
        return self.direction in ("both", "send")

    @property
    def receives(self) -> bool:
        """Whether changes of peers come to this node."""
        return self.direction in ("both", "receive")

    def covers(self, path: str) -> bool:
        """Tell whether the file ``path`` (absolute, normal) belongs to this item."""
        name = posixpath.basename(path)
        if name.startswith(".") or name.endswith(_TEMPORARY_ENDS):
            return False
        if not any(_matches(pattern, path) for pattern in self.paths):
            return False
        if self.is_uci and (name in NODE_LOCAL or not _is_package_name(name)):
            return False
        return not any(
            fnmatch.fnmatchcase(path if exclude.startswith("/") else name, exclude)
            for exclude in self.excludes
        )

    def roots(self) -> tuple[tuple[str, bool], ...]:
        """Return (directory, is everything below of interest) of every path."""
        return tuple(dict.fromkeys(_root(pattern) for pattern in self.paths))

    def root_of(self, path: str) -> str:
        """Return the directory that ``path`` must not leave, following no link out of it."""
        for pattern in self.paths:
            if _matches(pattern, path):
                return _root(pattern)[0]
        raise BadPathError(f"{path} is not part of {self.name}")


def check_path(path: object) -> str:
    """Return ``path`` when it is one a peer may name; raise ``BadPathError`` with the reason."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise BadPathError(f"{path!r}: not an absolute path")
    if len(path) > MAX_PATH:
        raise BadPathError(f"{path[:60]!r}…: a path of more than {MAX_PATH} characters")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        raise BadPathError(f"{path!r}: a name with a line break or another control character")
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise BadPathError(f"{path!a}: a name that is not UTF-8") from None
    if posixpath.normpath(path) != path or path.startswith("//"):
        raise BadPathError(f"{path!r}: a path with '.', '..' or empty parts")
    return path


def make_items(
    sections: Mapping[str, Mapping[str, Any]],
    *,
    config_dir: str,
    recordings: str = "",
    licences: str = LICENCES,
) -> dict[str, Item]:
    """Return the items by name: the built-in ones, changed and joined by the UCI sections.

    sections: name -> typed options of the `item` sections; ``recordings``: where the Conference
    Server keeps them (empty: nothing is kept, and nothing synchronised).
    """
    items = {
        "config": Item(
            name="config", paths=(f"{config_dir}/*",), reload="reload_config", is_uci=True
        ),
        "jobs": Item(name="jobs", paths=("/etc/controlone.d/jobs",), follows_state=True),
        "licences": Item(name="licences", paths=(licences,)),
        "recordings": Item(name="recordings", paths=(recordings,) if recordings else ()),
        "sounds": Item(name="sounds", paths=("/etc/controlone.d/sounds",)),
    }
    for name, options in sections.items():
        if name == "database":
            continue
        base = items.get(name, Item(name=name))
        items[name] = Item(
            name=name,
            paths=_clean(options.get("paths") or base.paths),
            excludes=tuple(options.get("exclude") or ()),
            reload=options.get("reload") or base.reload,
            direction=options.get("direction") or "both",
            is_uci=base.is_uci,
            follows_state=base.follows_state,
            max_age=int(options.get("max_age") or 0),
            max_size=int(options.get("max_size") or 0),
        )
    return {name: item for name, item in items.items() if item.paths and item.direction != "none"}


def item_of(items: Iterable[Item], path: str) -> Item | None:
    """Return the first item that covers ``path``."""
    return next((item for item in items if item.covers(path)), None)


def _clean(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(posixpath.normpath(path) for path in paths)


def _is_pattern(path: str) -> bool:
    return any(letter in path for letter in "*?[")


def _matches(pattern: str, path: str) -> bool:
    if not _is_pattern(pattern):
        return path == pattern or path.startswith(pattern.rstrip("/") + "/")
    wanted, given = pattern.split("/"), path.split("/")
    return len(wanted) == len(given) and all(
        fnmatch.fnmatchcase(part, mask) for part, mask in zip(given, wanted, strict=True)
    )


def _root(pattern: str) -> tuple[str, bool]:
    if not _is_pattern(pattern):
        return pattern, True
    parts = pattern.split("/")
    first = next(index for index, part in enumerate(parts) if _is_pattern(part))
    return "/".join(parts[:first]) or "/", first < len(parts) - 1


def _is_package_name(name: str) -> bool:
    return all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in name)
