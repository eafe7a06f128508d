"""Network interfaces as one value, and what changed between two of them. No I/O.

The worker fills a ``LinkTable`` from netlink and publishes its ``snapshot`` after each change; what
happened is the difference of two snapshots, so that a lost message costs a detail and never the
truth.

An interface is *up* when it is set up and has a carrier. It matters when it holds (or held) an
address, or when it is in the given list; loopback never does. A default route counts only while
its interface is up: on IPv4 the kernel drops routes of a downed interface without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_RUNNING = 0x40
_SCOPE_LINK = 253


class LinkEventKind(StrEnum):
    """What can happen to the node's network."""

    CARRIER_LOST = "carrier_lost"
    CARRIER_BACK = "carrier_back"
    INTERFACE_GONE = "interface_gone"
    INTERFACE_NEW = "interface_new"
    ADDRESS_REMOVED = "address_removed"
    ADDRESS_ADDED = "address_added"
    DEFAULT_ROUTE_LOST = "default_route_lost"
    DEFAULT_ROUTE_BACK = "default_route_back"


@dataclass(frozen=True, kw_only=True)
class LinkEvent:
    """One change; ``subject`` is an interface, or an address on ``interface``."""

    kind: LinkEventKind
    interface: str = ""
    address: str = ""

    @property
    def text(self) -> str:
        """A short phrase for a person."""
        return _PHRASES[self.kind].format(interface=self.interface, address=self.address)


_PHRASES: Mapping[LinkEventKind, str] = {
    LinkEventKind.CARRIER_LOST: "interface {interface} is down",
    LinkEventKind.CARRIER_BACK: "interface {interface} is up",
    LinkEventKind.INTERFACE_GONE: "interface {interface} is gone",
    LinkEventKind.INTERFACE_NEW: "interface {interface} has appeared",
    LinkEventKind.ADDRESS_REMOVED: "address {address} is gone from {interface}",
    LinkEventKind.ADDRESS_ADDED: "address {address} is on {interface}",
    LinkEventKind.DEFAULT_ROUTE_LOST: "there is no default route any more",
    LinkEventKind.DEFAULT_ROUTE_BACK: "there is a default route",
}


@dataclass(frozen=True, kw_only=True)
class InterfaceState:
    """One interface: up with carrier, and its addresses; no prefixes, no link-local ones."""

    is_up: bool
    addresses: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class LinkSnapshot:
    """The node's network at one moment."""

    interfaces: Mapping[str, InterfaceState] = field(default_factory=dict)
    has_default_route: bool = False

    @property
    def has_any_up(self) -> bool:
        """True when an interface that matters is up and has an address."""
        return any(state.is_up and state.addresses for state in self.interfaces.values())

    def to_json(self) -> dict[str, Any]:
        """Return ``{"interfaces": {name: {"up", "addresses"}}, "default_route"}``."""
        return {
            "interfaces": {
                name: {"up": state.is_up, "addresses": sorted(state.addresses)}
                for name, state in sorted(self.interfaces.items())
            },
            "default_route": self.has_default_route,
        }


def snapshot_from_json(raw: Mapping[str, Any]) -> LinkSnapshot:
    """Return the snapshot that ``to_json`` made."""
    return LinkSnapshot(
        interfaces={
            name: InterfaceState(is_up=state["up"], addresses=frozenset(state["addresses"]))
            for name, state in raw["interfaces"].items()
        },
        has_default_route=raw["default_route"],
    )


def changes(old: LinkSnapshot, new: LinkSnapshot) -> list[LinkEvent]:
    """Return what happened between two snapshots, losses first."""
    return [*_losses(old, new), *_gains(old, new)]


def _losses(old: LinkSnapshot, new: LinkSnapshot) -> Iterator[LinkEvent]:
    if old.has_default_route and not new.has_default_route:
        yield LinkEvent(kind=LinkEventKind.DEFAULT_ROUTE_LOST)
    for name, before in sorted(old.interfaces.items()):
        after = new.interfaces.get(name)
        if after is None:
            yield LinkEvent(kind=LinkEventKind.INTERFACE_GONE, interface=name)
            continue
        if before.is_up and not after.is_up:
            yield LinkEvent(kind=LinkEventKind.CARRIER_LOST, interface=name)
        for address in sorted(before.addresses - after.addresses):
            yield LinkEvent(kind=LinkEventKind.ADDRESS_REMOVED, interface=name, address=address)


def _gains(old: LinkSnapshot, new: LinkSnapshot) -> Iterator[LinkEvent]:
    for name, after in sorted(new.interfaces.items()):
        before = old.interfaces.get(name)
        if before is None:
            yield LinkEvent(kind=LinkEventKind.INTERFACE_NEW, interface=name)
            continue
        if after.is_up and not before.is_up:
            yield LinkEvent(kind=LinkEventKind.CARRIER_BACK, interface=name)
        for address in sorted(after.addresses - before.addresses):
            yield LinkEvent(kind=LinkEventKind.ADDRESS_ADDED, interface=name, address=address)
    if new.has_default_route and not old.has_default_route:
        yield LinkEvent(kind=LinkEventKind.DEFAULT_ROUTE_BACK)


@dataclass
class _Interface:
    name: str
    is_up: bool
    is_loopback: bool
    addresses: set[str] = field(default_factory=set)


class LinkTable:
    """What netlink has told so far. Each method takes one message's content."""

    def __init__(self, wanted: Collection[str] | None = None) -> None:
        """``wanted``: names of the interfaces that matter; None: those that hold addresses."""
        self.wanted = None if wanted is None else frozenset(wanted)
        self._interfaces: dict[int, _Interface] = {}
        self._default_routes: set[tuple[int, int, str]] = set()
        self._have_mattered: set[str] = set()

    def link(self, index: int, name: str, flags: int) -> None:
        """An interface is as told (RTM_NEWLINK)."""
        is_up = bool(flags & IFF_UP) and bool(flags & IFF_RUNNING)
        known = self._interfaces.get(index)
        if known is None:
            self._interfaces[index] = _Interface(name, is_up, bool(flags & IFF_LOOPBACK))
        else:
            known.name, known.is_up = name, is_up
        if not flags & IFF_UP:
            self._forget_routes(index)

    def link_gone(self, index: int) -> None:
        """An interface is gone (RTM_DELLINK); its name may come back under another index."""
        gone = self._interfaces.pop(index, None)
        if gone is not None:
            self._have_mattered.discard(gone.name)
        self._forget_routes(index)

    def address(self, index: int, address: str, scope: int) -> None:
        """An address is there (RTM_NEWADDR)."""
        interface = self._interfaces.get(index)
        if interface is not None and scope < _SCOPE_LINK:
            interface.addresses.add(address)

    def address_gone(self, index: int, address: str) -> None:
        """An address is gone (RTM_DELADDR)."""
        interface = self._interfaces.get(index)
        if interface is not None:
            interface.addresses.discard(address)

    def default_route(self, family: int, index: int, gateway: str) -> None:
        """There is a default route (RTM_NEWROUTE of length 0)."""
        self._default_routes.add((family, index, gateway))

    def default_route_gone(self, family: int, index: int, gateway: str) -> None:
        """A default route is gone (RTM_DELROUTE of length 0)."""
        self._default_routes.discard((family, index, gateway))

    def replace_default_routes(self, routes: Collection[tuple[int, int, str]]) -> None:
        """Take the routes of a new dump, each ``(family, index, gateway)``."""
        self._default_routes = set(routes)

    def clear(self) -> None:
        """Forget everything before a full dump."""
        self._interfaces.clear()
        self._default_routes.clear()

    def snapshot(self) -> LinkSnapshot:
        """Return what matters now."""
        found: dict[str, InterfaceState] = {}
        for interface in self._interfaces.values():
            if interface.is_loopback:
                continue
            if self.wanted is None:
                if interface.addresses:
                    self._have_mattered.add(interface.name)
                if interface.name not in self._have_mattered:
                    continue
            elif interface.name not in self.wanted:
                continue
            found[interface.name] = InterfaceState(
                is_up=interface.is_up, addresses=frozenset(interface.addresses)
            )
        has_route = any(
            known.is_up
            for _, index, _ in self._default_routes
            if (known := self._interfaces.get(index)) is not None
        )
        return LinkSnapshot(interfaces=found, has_default_route=has_route)

    def _forget_routes(self, index: int) -> None:
        self._default_routes = {route for route in self._default_routes if route[1] != index}
