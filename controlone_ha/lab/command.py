"""`python -m controlone_ha.lab`: make a lab, break it, look at it, remove it; for people.

A lab made here stays until `down`. Its state is on the machine (directory, namespaces, processes),
so each command finds it again by its name, `main` unless `--lab` says otherwise. Exit codes: 0
done, 1 refused or failed with one sentence on stderr, 2 wrong usage; `exec` gives that of the
program.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from controlone_ha.errors import LabError
from controlone_ha.lab import cluster, namespaces
from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.node import LabNode

DEFAULT_LAB = "main"


def _up(options: argparse.Namespace) -> int:
    from controlone_ha.lab.figure import figure_one, make_lab

    started = time.monotonic()
    ha = {} if options.interval is None else {"interval": options.interval}
    nodes = figure_one(ha=ha, ssh=options.ssh, database=options.database)
    lab = make_lab(nodes, lab_id=options.lab, tied=False, root_password=options.password)
    lab.up()
    for node in lab.nodes.values():
        node.wait_until_listening(22)
    if not options.unpaired:
        from controlone_ha.lab.pairing import pin_everybody

        pin_everybody(lab)
    print(f"lab {lab.id} is up after {time.monotonic() - started:.1f} s: {', '.join(lab.nodes)}")
    return 0


def _down(options: argparse.Namespace) -> int:
    if options.all:
        names = cluster.remove_all()
        print(f"removed: {', '.join(names) if names else 'nothing was there'}")
        return 0
    Lab.attach(options.lab).down()
    print(f"lab {options.lab} is gone")
    return 0


def _status(options: argparse.Namespace) -> int:
    lab = Lab.attach(options.lab)
    for node in lab.nodes.values():
        state = "up" if node.is_up else "down"
        cable = ", cable pulled" if node.is_cut else ""
        print(f"{node.name:<12} {node.address:<14} {state}{cable}")
        for name, status in node.services().items() if node.is_up else ():
            details = [status["phase"]]
            if status["pid"] is not None:
                details.append(f"pid {status['pid']}")
            if status["restarts"]:
                details.append(f"{status['restarts']} restarts")
            if status["held"]:
                details.append("held down")
            if status["last_exit"]:
                details.append(f"last: {status['last_exit']}")
            print(f"    {name:<12} {', '.join(details)}")
    return 0


def _exec(options: argparse.Namespace) -> int:
    if not options.command:
        raise LabError("exec: which program? for instance: exec m1 ha status")
    process = _node(options).spawn(
        options.command, stdin=None, stdout=None, stderr=None, start_new_session=False
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        return process.wait()


def _kill(options: argparse.Namespace) -> int:
    node = _node(options)
    if options.service is None:
        node.kill()
    elif options.hold:
        node.hold(options.service)
    else:
        node.kill_service(options.service, options.signal)
    return 0


def _release(options: argparse.Namespace) -> int:
    _node(options).release(options.service)
    return 0


def _boot(options: argparse.Namespace) -> int:
    Lab.attach(options.lab).boot(options.node)
    return 0


def _logs(options: argparse.Namespace) -> int:
    node = _node(options)
    path = node.log_path(options.service)
    if not path.exists():
        known = ", ".join(sorted(log.stem for log in path.parent.glob("*.log"))) or "none"
        raise LabError(f"{node.name}: no log of {options.service!r} (there are: {known})")
    if options.follow:
        return subprocess.call(["tail", "-n", "50", "-F", str(path)])
    sys.stdout.write(node.read_log(options.service))
    return 0


def _freeze(options: argparse.Namespace) -> int:
    _node(options).freeze(options.service)
    return 0


def _thaw(options: argparse.Namespace) -> int:
    _node(options).thaw(options.service)
    return 0


def _cut(options: argparse.Namespace) -> int:
    lab = Lab.attach(options.lab)
    if options.towards is None:
        lab.node(options.node).cut()
    else:
        lab.cut_one_way(options.node, options.towards)
    return 0


def _heal(options: argparse.Namespace) -> int:
    lab = Lab.attach(options.lab)
    if options.node is None:
        lab.heal()
        for node in lab.nodes.values():
            node.heal()
    elif options.towards is None:
        lab.node(options.node).heal()
    else:
        lab.heal_one_way(options.node, options.towards)
    return 0


def _impair(options: argparse.Namespace) -> int:
    _node(options).impair(
        delay_ms=options.delay, jitter_ms=options.jitter, loss_percent=options.loss
    )
    return 0


def _partition(options: argparse.Namespace) -> int:
    Lab.attach(options.lab).partition()
    return 0


def _node(options: argparse.Namespace) -> LabNode:
    return Lab.attach(options.lab).node(options.node)


Action = Callable[[argparse.Namespace], int]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m controlone_ha.lab",
        description="A whole cluster on this machine, in network namespaces. Needs root.",
    )
    top.add_argument("--lab", default=DEFAULT_LAB, help="name of the lab (default: %(default)s)")
    actions = top.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, function: Action, text: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=text)
        made.set_defaults(function=function)
        return made

    up = action("up", _up, "make the lab, paired: m1 and s1 at site 1; m2, s2 and p1 at site 2")
    up.add_argument("--interval", help="ha.default.interval in seconds (default: the product's)")
    up.add_argument("--ssh", choices=("openssh", "dropbear"), default="openssh")
    up.add_argument("--database", action="store_true", help="a mongod on every node too")
    up.add_argument("--unpaired", action="store_true", help="leave pairing to `ha pair`")
    up.add_argument("--password", help="let root log in over SSH with this password")
    down = action("down", _down, "remove the lab")
    down.add_argument("--all", action="store_true", help="every lab of this machine, and leftovers")
    action("status", _status, "show the nodes and their services")

    run = action("exec", _exec, "run a program on a node")
    run.add_argument("node")
    run.add_argument("command", nargs=argparse.REMAINDER)
    kill = action("kill", _kill, "kill -9 every process of a node, or one service")
    kill.add_argument("node")
    kill.add_argument("service", nargs="?")
    kill.add_argument("--signal", default="SIGKILL", help="another signal than SIGKILL")
    kill.add_argument("--hold", action="store_true", help="for good: not respawned until `release`")
    release = action("release", _release, "end `kill --hold` and start the service")
    release.add_argument("node")
    release.add_argument("service")
    boot = action("boot", _boot, "boot a node again after kill")
    boot.add_argument("node")
    logs = action("logs", _logs, "show what a service of a node wrote")
    logs.add_argument("node")
    logs.add_argument("service")
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing")
    for name, function, text in (
        ("freeze", _freeze, "SIGSTOP a whole node, or one service"),
        ("thaw", _thaw, "SIGCONT what was frozen"),
    ):
        made = action(name, function, text)
        made.add_argument("node")
        made.add_argument("service", nargs="?")
    cut = action("cut", _cut, "pull a node's cable, or lose what it sends to one other node")
    cut.add_argument("node")
    cut.add_argument("towards", nargs="?", metavar="OTHER")
    heal = action("heal", _heal, "undo cut; with no node undo partition and every pulled cable")
    heal.add_argument("node", nargs="?")
    heal.add_argument("towards", nargs="?", metavar="OTHER")
    impair = action("impair", _impair, "give a node a bad cable; without options a good one again")
    impair.add_argument("node")
    impair.add_argument("--delay", type=float, default=0.0, metavar="MS", help="each way")
    impair.add_argument(
        "--jitter", type=float, default=0.0, metavar="MS", help="up to so much more"
    )
    impair.add_argument("--loss", type=float, default=0.0, metavar="PERCENT", help="each way")
    action("partition", _partition, "drop everything between site 1 and site 2, in silence")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = parser().parse_args(arguments)
    try:
        namespaces.require_root()
        code: int = options.function(options)
        return code
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except FileNotFoundError as error:
        print(f"lab: {shlex.quote(str(error.filename))} is missing", file=sys.stderr)
        return 1
