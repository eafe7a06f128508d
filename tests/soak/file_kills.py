"""Files while `ha` is killed: ``python -m tests.soak.file_kills [ROUNDS] [SEED]``.

Figure 1, real nodes, real sshd. In each round two nodes change files of their own, small ones, UCI
options and a large one, and `ha` of a writer or of a receiver is killed with SIGKILL at a random
moment, sometimes twice; all the while every file on every node is read. A round is right when

- no reader saw anything but a whole version (each carries its own checksum),
- all nodes end with the last version of every file, whoever was killed: each had been renamed into
  place by its writer, so none may be lost,
- every version on every node has the stamp of its writer: nobody took what he received for an edit,
- no node that lived received more bytes than the changes have, with some room for asking: each
  change crossed each link once,
- and no node has kept a conflict copy, as no file has two writers.

Not collected by pytest: 200 rounds take about a quarter of an hour. Exit code 1 when a round was
wrong.
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

from controlone_ha.lab.cluster import Lab
from controlone_ha.lab.figure import figure_one
from controlone_ha.lab.node import LabNode
from controlone_ha.lab.topology import Section
from controlone_ha.sync.stamps import Stamp
from tests.cluster.support import paired_lab, status, wait_until

SOUNDS = "/var/lib/controlone/sounds"
SMALL = 4
"""Small files of each writer in a round."""
LARGE = (200_000, 6_000_000)
"""Bytes of the large one, at random between these."""
ROOM = 400_000
"""Bytes that heartbeats, probes and comparing may cost in a round."""
LIMIT = 60.0
WRONG = ("pending", "held")


def main(arguments: list[str]) -> int:
    """Run the rounds and print what was found."""
    rounds = int(arguments[0]) if arguments else 200
    seed = int(arguments[1]) if len(arguments) > 1 else 1
    print(f"{rounds} rounds of kill -9, seed {seed}", flush=True)
    nodes = figure_one(ha={"timeout": "3"})
    for node in nodes:
        item = Section(kind="item", name="sounds", options={"paths": SOUNDS})
        node.packages["ha"] = (*node.packages["ha"], item)  # type: ignore[index]
    with paired_lab(nodes) as lab:
        run = Run(lab, random.Random(seed))
        wait_until(lab, run.is_level, "everything is in sync", limit=120)
        told = 0
        for number in range(1, rounds + 1):
            run.round(number)
            if number % 10 == 0:
                print(run.summary(number), flush=True)
            for sentence in run.problems[told:]:
                print(sentence, flush=True)
            told = len(run.problems)
            if len(run.problems) > 5:
                break
        if not run.problems:
            print("nothing torn, lost, stamped anew or sent twice")
    return 1 if run.problems else 0


class Reader(threading.Thread):
    """Reads every file of every node until it is told to end; what is torn is a problem."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(daemon=True)
        self.reads = 0
        self.torn: list[str] = []
        self._places = [node.path(SOUNDS) for node in lab.nodes.values()]
        self._ended = threading.Event()
        self._seen: dict[Path, tuple[int, int]] = {}

    def run(self) -> None:
        while not self._ended.wait(0.05):
            self.look()

    def look(self) -> None:
        """Read what has changed since the last look."""
        for place in self._places:
            for file in place.glob("[!.]*"):
                with file.open("rb") as opened:
                    found = os.fstat(opened.fileno())
                    identity = (found.st_ino, found.st_mtime_ns)
                    if self._seen.get(file) == identity:
                        continue
                    content = opened.read()
                self._seen[file] = identity
                self.reads += 1
                if content[:64] != hashlib.sha256(content[64:]).hexdigest().encode():
                    self.torn.append(f"{file}: {len(content)} bytes are no whole version")

    def end(self) -> None:
        self._ended.set()
        self.join(10.0)


class Run:
    """The rounds in one cluster."""

    def __init__(self, lab: Lab, chance: random.Random) -> None:
        self.lab = lab
        self.chance = chance
        self.problems: list[str] = []
        self.reads = self.changes = self.kills = 0
        self.most = 0.0
        self._expected: dict[str, tuple[str, str]] = {}
        """Path -> (writer, checksum of its last version)."""
        self._options: dict[str, str] = {}
        for node in lab.nodes.values():
            node.path(SOUNDS).mkdir(parents=True, exist_ok=True)

    def summary(self, number: int) -> str:
        return (
            f"{number} rounds: {self.kills} kills, {self.changes} changes, {self.reads} versions"
            f" read, at most {self.most:.2f} of the changes' bytes received by a node that lived,"
            f" {len(self.problems)} problems"
        )

    def round(self, number: int) -> None:
        """Change, kill, wait until all is level, and judge."""
        names = sorted(self.lab.nodes)
        first, second = self.chance.sample(names, 2)
        receivers = [name for name in names if name not in (first, second)]
        killed = self.chance.choice([first, self.chance.choice(receivers)])
        reader = Reader(self.lab)
        reader.start()
        before = {name: received(self.lab.node(name)) for name in names}
        volume = 0
        moments = sorted(self.chance.uniform(0, 0.6) for _ in range(self.chance.choice((1, 1, 2))))
        killer = threading.Thread(target=self._kill, args=(killed, moments))
        killer.start()
        volume += self._change(first, number, has_large=True)
        volume += self._change(second, number, has_large=False)
        killer.join()
        self.kills += len(moments)
        try:
            wait_until(self.lab, self.is_level, f"round {number}: all are level", limit=LIMIT)
        except AssertionError:
            self.problems.append(f"round {number}: not level after {LIMIT:g} s: {self.unlike()}")
        reader.end()
        reader.look()
        self.reads += reader.reads
        self.problems += [f"round {number}: {sentence}" for sentence in reader.torn]
        for name in names:
            if name not in (killed, first, second):
                share = (received(self.lab.node(name)) - before[name] - ROOM) / volume
                self.most = max(self.most, share)
                if share > 1.6:  # short ones travel as text, a third longer
                    self.problems.append(f"round {number}: {name} received {share:.1f} of it")
        self._judge_stamps(number)

    def _kill(self, name: str, moments: list[float]) -> None:
        started = time.monotonic()
        for moment in moments:
            time.sleep(max(0.0, started + moment - time.monotonic()))
            if self.lab.node(name).services()["ha"]["pid"] is not None:
                self.lab.node(name).kill_service("ha")

    def _change(self, name: str, number: int, *, has_large: bool) -> int:
        """Change files of one writer; return their bytes."""
        node = self.lab.node(name)
        total = 0
        sizes = [self.chance.randrange(1, 100_000) for _ in range(SMALL)]
        if has_large:
            sizes.append(self.chance.randrange(*LARGE))
        for index, size in enumerate(sizes):
            body = os.urandom(size)
            content = hashlib.sha256(body).hexdigest().encode() + body
            file = f"{name}-{'large' if index == SMALL else index}.wav"
            target = node.path(SOUNDS) / file
            temporary = node.path("/var/lib/controlone") / f"{file}.new"
            temporary.write_bytes(content)
            os.replace(temporary, target)
            self._expected[file] = (name, hashlib.sha256(content).hexdigest())
            total += len(content)
            self.changes += 1
            time.sleep(self.chance.uniform(0, 0.1))
        self._options[name] = str(number)
        node.exec(["uci", "set", f"server.{name}=note"], check=True)
        node.exec(["uci", "set", f"server.{name}.text=round {number}"], check=True)
        node.exec(["uci", "commit", "server"], check=True)
        self.changes += 1
        return total

    def is_level(self) -> bool:
        """Tell whether every node has the last version of everything, and says so."""
        return not self.unlike()

    def unlike(self) -> str:
        """Return the first thing that is not as it has to be, empty when all is."""
        for name, node in self.lab.nodes.items():
            for file, (writer, checksum) in self._expected.items():
                if self._checksum(node.path(SOUNDS) / file) != checksum:
                    return f"{name} has not the last {file} of {writer}"
            text = node.path("/etc/config/server").read_text()
            for writer, number in self._options.items():
                if f"config note '{writer}'\n\toption text 'round {number}'" not in text:
                    return f"{name} has not the section of {writer}, round {number}: {text!r}"
            for row in status(node)["sync"]:
                for peer, standing in row["peers"].items():
                    if standing["state"] in WRONG:
                        return f"{name}: {row['item']} with {peer} is {standing}"
        return ""

    _sums: dict[tuple[int, int, int], str] = {}

    def _checksum(self, file: Path) -> str:
        try:
            found = file.stat()
        except FileNotFoundError:
            return ""
        key = (found.st_dev, found.st_ino, found.st_mtime_ns)
        if key not in self._sums:
            self._sums[key] = hashlib.sha256(file.read_bytes()).hexdigest()
        return self._sums[key]

    def _judge_stamps(self, number: int) -> None:
        for name, node in self.lab.nodes.items():
            journal = node.path("/etc/controlone/sync.db")
            with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as opened:
                rows = opened.execute("SELECT path, stamp FROM versions").fetchall()
            for path, stamp in rows:
                author = Stamp.parse(stamp).node
                writer, _checksum = self._expected.get(os.path.basename(path), (author, ""))
                if author != writer:
                    self.problems.append(f"round {number}: {name}: {path} stamped by {author}")
            conflicts = node.exec(["ha", "conflicts", "--json"]).stdout
            if "sounds" in conflicts:
                self.problems.append(f"round {number}: {name} has conflicts: {conflicts[:300]}")


def received(node: LabNode) -> int:
    """Return the bytes that a node's network has received."""
    init = node.init
    assert init is not None
    total = 0
    for line in Path(f"/proc/{init[0]}/net/dev").read_text().splitlines()[2:]:
        name, _, fields = line.partition(":")
        if name.strip() != "lo":
            total += int(fields.split()[0])
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
