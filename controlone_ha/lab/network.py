"""The lab's network: one namespace a node, one router that joins the sites, by pyroute2.

Theory of operation. Each site is a bridge in the router's namespace, with the site's gateway
address on it; each node has a veth pair, ``eth0`` on its side and a port of its site's bridge on
the router's. What happens to the network happens in the router, never in a node:

- cut: the node's bridge port goes down. The node sees its carrier go, as with a pulled cable; all
  others get silence. The router's ARP entries are permanent, so it never answers "host unreachable"
  in the node's place; a neighbour in the same subnet finds out by its own ARP after about three
  seconds, as on any Ethernet.
- partition: policy rules in the router drop what goes between two sites. A blackhole rule is
  silent, unlike an unreachable route.
- one-way cut: the same, for one pair of nodes in one direction. Inside a subnet no router is
  passed: there the sender is given a wrong Ethernet address for the other.
- impairment (delay, jitter, loss): a process of ours between the port and the bridge, see ``wire``.

The state is the kernel's: every method works from any process that knows the lab's id and its
nodes. pyroute2 is imported when first needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from controlone_ha.errors import LabError
from controlone_ha.lab import namespaces, topology
from controlone_ha.lab.shims import PACKAGE_PARENT
from controlone_ha.lab.topology import NODE_INTERFACE, ROUTER, NodeSpec

NETNS_DIRECTORY = Path("/run/netns")
NOBODY = "02:71:ff:ff:ff:ff"
"""An Ethernet address that no node has: what is sent to it is lost."""

_SITE_RULES = 1000
_NODE_RULES = 900

Result = TypeVar("Result")


class LabNetwork:
    """The network of one lab. Every method may be repeated; errors are ``LabError``.

    ``lifeline``: a descriptor at whose end of file the lab's helper processes shall end.
    """

    def __init__(self, lab_id: str, nodes: Sequence[NodeSpec]) -> None:
        self.lab_id = topology.check_lab_id(lab_id)
        self.nodes = {node.name: node for node in nodes}
        self.lifeline: int | None = None
        self._wires: dict[str, subprocess.Popen[str]] = {}

    # -- building and removing ---------------------------------------------------------------

    def build(self) -> None:
        """Make the namespaces, the bridges and the links; on failure remove what was made."""
        try:
            _apart(self._build)
        except BaseException:
            self.remove()
            raise

    def _build(self) -> None:
        from pyroute2 import netns

        for name in (ROUTER, *self.nodes):
            netns.create(self._namespace(name))
        with self._enter(ROUTER) as router:
            router.link("set", index=1, state="up")
            for site in sorted({node.site for node in self.nodes.values()}):
                name = topology.bridge(site)
                router.link(
                    "add",
                    ifname=name,
                    kind="bridge",
                    # Fixed, or the bridge takes another one with every port that comes and goes.
                    address=topology.gateway_mac(site),
                    br_stp_state=0,
                    br_mcast_snooping=0,
                )
                index = _index(router, name)
                router.addr("add", index=index, address=topology.gateway(site), prefixlen=24)
                router.link("set", index=index, state="up")
            for node in self.nodes.values():
                self._attach(router, node)
        _set_forwarding(self._namespace(ROUTER))

    def _attach(self, router: Any, node: NodeSpec) -> None:
        site = _index(router, topology.bridge(node.site))
        router.link(
            "add",
            ifname=node.port,
            kind="veth",
            peer={
                "ifname": NODE_INTERFACE,
                "address": node.mac,
                "net_ns_fd": self._namespace(node.name),
            },
        )
        router.link("set", index=_index(router, node.port), master=site, state="up")
        router.neigh("replace", dst=node.address, lladdr=node.mac, ifindex=site, state="permanent")
        with self._enter(node.name) as inside:
            interface = _index(inside, NODE_INTERFACE)
            inside.link("set", index=1, state="up")
            inside.addr("add", index=interface, address=node.address, prefixlen=24)
            inside.link("set", index=interface, state="up")
            inside.route("add", dst="default", gateway=topology.gateway(node.site))

    def remove(self) -> None:
        """Remove every namespace of this lab; its interfaces vanish with them."""
        for name in list(self._wires):
            process = self._wires.pop(name)
            process.kill()
            process.communicate()
        remove_namespaces(topology.namespace(self.lab_id, ""))

    def _namespace(self, name: str) -> str:
        return topology.namespace(self.lab_id, name)

    def namespace_path(self, name: str) -> Path:
        """Return the file that stands for the network namespace of a node or of the router."""
        return NETNS_DIRECTORY / self._namespace(name)

    # -- what happens to a network -----------------------------------------------------------

    def cut(self, name: str) -> None:
        """Pull the node's cable: silence for the others, carrier lost for the node."""
        self._set_port(name, "down")

    def heal(self, name: str) -> None:
        """Put the node's cable back."""
        self._set_port(name, "up")

    def _set_port(self, name: str, state: str) -> None:
        node = self._node(name)

        def change() -> None:
            with self._enter(ROUTER) as router:
                router.link("set", index=_index(router, node.port), state=state)

        _apart(change)

    def is_cut(self, name: str) -> bool:
        """Return whether the node's cable is pulled."""
        node = self._node(name)

        def look() -> bool:
            with self._enter(ROUTER) as router:
                link = router.get_links(_index(router, node.port))[0]
                return not link["flags"] & 1  # IFF_UP

        return _apart(look)

    def partition(self, site: int, other: int) -> None:
        """Drop, in silence, everything between two sites."""
        self._rules("add", self._between_sites(site, other))

    def heal_partition(self, site: int, other: int) -> None:
        """Let two sites reach each other again."""
        self._rules("del", self._between_sites(site, other))

    @staticmethod
    def _between_sites(site: int, other: int) -> list[tuple[str, str, int]]:
        here, there = topology.subnet(site), topology.subnet(other)
        return [(here, there, _SITE_RULES), (there, here, _SITE_RULES)]

    def cut_one_way(self, sender: str, receiver: str) -> None:
        """Lose, in silence, what ``sender`` sends to ``receiver``; not what comes back."""
        self._one_way("add", self._node(sender), self._node(receiver))

    def heal_one_way(self, sender: str, receiver: str) -> None:
        """Undo ``cut_one_way``."""
        self._one_way("del", self._node(sender), self._node(receiver))

    def _one_way(self, verb: str, sender: NodeSpec, receiver: NodeSpec) -> None:
        if sender.site != receiver.site:
            self._rules(verb, [(f"{sender.address}/32", f"{receiver.address}/32", _NODE_RULES)])
            return

        def change() -> None:
            with self._enter(sender.name) as inside:
                interface = _index(inside, NODE_INTERFACE)
                address = {"dst": receiver.address, "ifindex": interface}
                if verb == "add":
                    inside.neigh("replace", lladdr=NOBODY, state="permanent", **address)
                else:
                    with _ignoring(errno.ENOENT):
                        inside.neigh("del", **address)

        _apart(change)

    def _rules(self, verb: str, pairs: Sequence[tuple[str, str, int]]) -> None:
        def change() -> None:
            with self._enter(ROUTER) as router:
                for source, destination, priority in pairs:
                    with _ignoring(errno.EEXIST, errno.ENOENT):
                        router.rule(
                            verb,
                            src=source,
                            dst=destination,
                            action="blackhole",
                            priority=priority,
                        )

        _apart(change)

    def impair(
        self,
        name: str,
        *,
        delay_ms: float = 0.0,
        jitter_ms: float = 0.0,
        loss_percent: float = 0.0,
    ) -> None:
        """Delay what goes to and comes from the node, and lose a part of it, each way.

        Every frame takes ``delay_ms`` and up to ``jitter_ms`` more. All 0: a good cable again.
        """
        node = self._node(name)
        self._take_wire_out(node)
        if delay_ms <= 0 and jitter_ms <= 0 and loss_percent <= 0:
            return
        process = subprocess.Popen(
            [
                sys.executable,
                *("-P", "-m", "controlone_ha.lab.wire"),
                str(self.namespace_path(ROUTER)),
                str(self.namespace_path(name)),
                node.port,
                node.tap,
                *(str(delay_ms), str(jitter_ms), str(loss_percent)),
            ],
            stdin=subprocess.DEVNULL if self.lifeline is None else self.lifeline,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)},
            start_new_session=True,
        )
        self._wires[name] = process
        assert process.stdout is not None and process.stderr is not None
        if process.stdout.readline() != "ready\n":
            detail = process.communicate()[1].strip().splitlines()
            raise LabError(f"no bad cable for {name}: {detail[-1] if detail else 'it ended'}")
        self._put_in_bridge(node, node.tap, node.port)

    def _take_wire_out(self, node: NodeSpec) -> None:
        """End the process that carries the node's frames, whoever started it."""
        for pid in namespaces.processes_in(self.namespace_path(ROUTER)):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if node.tap.encode() in words:
                    namespaces.kill_and_wait(pid)
        process = self._wires.pop(node.name, None)
        if process is not None:
            process.communicate()
        self._put_in_bridge(node, node.port, None)

    def _put_in_bridge(self, node: NodeSpec, interface: str, instead_of: str | None) -> None:
        def change() -> None:
            with self._enter(ROUTER) as router:
                if instead_of is not None:
                    router.link("set", index=_index(router, instead_of), master=0)
                bridge = _index(router, topology.bridge(node.site))
                index = _index(router, interface)
                link = router.get_links(index)[0]
                if link.get_attr("IFLA_MASTER") != bridge:
                    router.link("set", index=index, master=bridge)
                if interface == node.tap:
                    router.link("set", index=index, state="up")

        _apart(change)

    # -- helpers -----------------------------------------------------------------------------

    def _node(self, name: str) -> NodeSpec:
        try:
            return self.nodes[name]
        except KeyError:
            raise LabError(
                f"no node {name!r} in this lab; it has {', '.join(self.nodes)}"
            ) from None

    @contextlib.contextmanager
    def _enter(self, name: str) -> Iterator[Any]:
        from pyroute2 import NetNS

        if not self.namespace_path(name).exists():
            raise LabError(f"no network namespace {self._namespace(name)}: the lab is not up")
        with NetNS(self._namespace(name), flags=0) as inside:
            yield inside


def remove_namespaces(prefix: str) -> list[str]:
    """Remove the network namespaces whose names begin with ``prefix``; return their names.

    The prefix must be one of a lab. Processes in them must be gone already: a namespace lives on,
    without its name, as long as one of them does.
    """
    if not prefix.startswith(topology.NAMESPACE_PREFIX):
        raise LabError(f"{prefix!r} is no lab's prefix")
    names = namespace_names(prefix)
    if names:

        def remove() -> None:
            from pyroute2 import netns

            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    netns.remove(name)

        _apart(remove)
    return names


def namespace_names(prefix: str | None = None) -> list[str]:
    """Return the existing network namespaces that begin with ``prefix`` (None: of any lab)."""
    wanted = topology.NAMESPACE_PREFIX if prefix is None else prefix
    try:
        return sorted(
            entry.name for entry in NETNS_DIRECTORY.iterdir() if entry.name.startswith(wanted)
        )
    except FileNotFoundError:
        return []


def _index(inside: Any, name: str) -> int:
    found = inside.link_lookup(ifname=name)
    if not found:
        raise LabError(f"no interface {name} in the lab's network")
    return int(found[0])


def _set_forwarding(namespace: str) -> None:
    """Let the router forward. /proc/sys/net shows the opener's namespace, so open it in there."""
    script = "echo 1 >/proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward"
    done = subprocess.run(
        ["nsenter", f"--net={NETNS_DIRECTORY / namespace}", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=10,
    )
    if done.stdout.strip() != "1":
        raise LabError(f"cannot switch forwarding on in {namespace}: {done.stderr.strip()}")


@contextlib.contextmanager
def _ignoring(*numbers: int) -> Iterator[None]:
    from pyroute2 import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code not in numbers:
            raise


def _apart(function: Callable[[], Result]) -> Result:
    """Call ``function``, which uses pyroute2; turn its errors into ``LabError``.

    pyroute2 runs an event loop of its own in the calling thread, which cannot be where one runs
    already: then a thread is used.
    """
    from pyroute2 import NetlinkError

    def guarded() -> Result:
        try:
            return function()
        except NetlinkError as error:
            remedy = ""
            if error.code in (errno.EPERM, errno.EACCES):
                remedy = "; the lab needs root with CAP_NET_ADMIN and CAP_SYS_ADMIN"
            raise LabError(f"the kernel refused a network change: {error}{remedy}") from error
        except PermissionError as error:
            raise LabError(f"{error}; the lab needs root with CAP_SYS_ADMIN") from error

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return guarded()
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(guarded())
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread just below
            failure.append(error)

    thread = threading.Thread(target=run, name="lab-network")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
