"""A random schedule of writes and faults on three real nodes, and what has to be true after it.

Each round has one fault (``FAULTS``), writes on all nodes while it lasts, an end of it, and a
judgement once all nodes say that they are in sync. Writes go one after the other, so that their
order is known to the driver:

- all nodes hold the same documents and the same conflicts;
- the document of each key is that of the last acknowledged write, or it is gone if that deleted it;
- of the sides of a partition, the last write of the side that lost is in the conflicts;
- of documents that want the same value of a unique index, one stays, the newest, and all others are
  in the conflicts: none is lost;
- a synchroniser that was away while the oplog rolled over says so, and its times are only known to
  lie between two moments: then only equality and "nothing lost" are judged.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.write_concern import WriteConcern

from tests.contract.database_support import Cluster
from tests.waiting import wait_for

FAULTS = ("none", "partition", "kill synchroniser", "kill database", "rollover")
KEYS = 12
CODES = 2
"""Values of the unique index that are written in a round."""
FILLER = "app.filler"
"""Not synchronised: makes the oplog roll over."""
MONGOD: dict[str, Any] = {"oplog": 16, "extra": ("--syncdelay", "2")}
"""A short oplog, given up soon: what no checkpoint covers yet is kept."""
SETTINGS: dict[str, Any] = {"exclude": (FILLER,)}
APART = 0.003
"""Seconds between writes: the databases stamp in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Write:
    """An acknowledged write. value: None when it deleted; side: of the partition in this round."""

    round: int
    node: str
    side: int
    key: Any
    value: str | None


class Schedule:
    """Rounds on one cluster; ``MONGOD`` and ``SETTINGS`` say how its parts have to be."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.chance = random.Random(seed)
        self.rounds = self.acknowledged = self.kept = self.clashes = 0
        self._numbers = 0
        self._things: list[Write] = []
        self._codes: dict[str, tuple[int, int]] = {}
        """Value of an acknowledged insert -> (code, order)."""
        self._bracketed_rounds: set[int] = set()
        for base in cluster.bases.values():
            base.client["app"]["codes"].create_index("code", unique=True)

    def run(self, rounds: int, faults: Sequence[str] = ()) -> list[str]:
        """Do some rounds, with these faults or random ones; return what is wrong, a line each."""
        problems: list[str] = []
        for number in range(rounds):
            fault = faults[number] if faults else self.chance.choice(FAULTS)
            self.rounds += 1
            problems += [f"round {self.rounds}, {fault}: {text}" for text in self._round(fault)]
        return problems

    # -- one round ----------------------------------------------------------------------------

    def _round(self, fault: str) -> list[str]:
        names = sorted(self.cluster.bases)
        victim = self.chance.choice(names)
        sides = dict.fromkeys(names, 0)
        away: set[str] = set()
        if fault == "partition":
            sides[victim] = 1
            self._cut(sides)
        elif fault == "kill synchroniser":
            sides[victim] = 1  # nothing leaves it, and nothing gets to it
            self.cluster.syncers[victim].kill()
        elif fault == "kill database":
            self.cluster.bases[victim].kill()
            away.add(victim)
        elif fault == "rollover":
            sides[victim] = 1
            self._bracketed_rounds.add(self.rounds)
            self.cluster.syncers[victim].kill()
        for _ in range(self.chance.randrange(10, 25)):
            self._write(self.chance.choice([name for name in names if name not in away]), sides)
        if fault == "rollover":
            self._roll_over(victim)
        self._end(fault, victim)
        problems = []
        if fault == "rollover" and not self._says_bracketed(victim):
            problems.append(f"{victim} does not say that its oplog has rolled over")
        return problems + self._judge()

    def _cut(self, sides: dict[str, int]) -> None:
        cluster = self.cluster
        for name, syncer in cluster.syncers.items():
            peers = {
                other: base.target
                for other, base in cluster.bases.items()
                if other != name and sides[other] == sides[name]
            }
            syncer.configure(cluster.settings(name, peers=peers))

        def is_cut() -> bool:
            for name, syncer in cluster.syncers.items():
                said = syncer.status()
                reach = {other for other in sides if other != name and sides[other] == sides[name]}
                if said["state"] != "running" or set(said["peers"]) != reach:
                    return False
            return True

        wait_for(is_cut, 20)

    def _end(self, fault: str, victim: str) -> None:
        cluster = self.cluster
        if fault == "partition":
            for name, syncer in cluster.syncers.items():
                syncer.configure(cluster.settings(name))
        elif fault in ("kill synchroniser", "rollover"):
            cluster.start(victim)
        elif fault == "kill database":
            cluster.bases[victim].start()
            cluster.bases[victim].wait_writable()

    def _roll_over(self, name: str) -> None:
        """Write until the oplog begins after what the synchroniser has read."""
        client = self.cluster.client(name)
        reached = client.admin.command("hello")["operationTime"]
        database, _, collection = FILLER.partition(".")
        filler = client[database][collection]

        def has_rolled() -> bool:
            filler.insert_many([{"text": "x" * (1 << 20)} for _ in range(4)])
            filler.delete_many({})
            first = client["local"]["oplog.rs"].find_one(sort=[("$natural", 1)])
            return first is not None and bool(first["ts"] > reached)

        wait_for(has_rolled, 60)

    def _says_bracketed(self, name: str) -> bool:
        def is_told() -> bool:
            return self.cluster.syncers[name].status().get("bracketed") is not None

        try:
            wait_for(is_told, 20)
        except AssertionError:
            return False
        return True

    def _write(self, name: str, sides: dict[str, int]) -> None:
        time.sleep(APART)
        self._numbers += 1
        value = f"{name}{self._numbers}"
        options = WriteConcern(w=1, j=True)
        things = self.cluster.collection(name).with_options(write_concern=options)
        codes = self.cluster.collection(name, "app.codes").with_options(write_concern=options)
        key: Any = self.chance.randrange(KEYS)
        kind = self.chance.choice(("replace", "replace", "update", "delete", "code", "code"))
        try:
            if kind == "code":
                code = self.rounds * CODES + self.chance.randrange(CODES)
                codes.insert_one({"_id": value, "code": code})
                self._codes[value] = (code, self._numbers)
                self.acknowledged += 1
                return
            if kind == "replace":
                things.replace_one({"_id": key}, {"value": value}, upsert=True)
            elif kind == "update":
                things.update_one({"_id": key}, {"$set": {"value": value}}, upsert=True)
            elif not things.delete_one({"_id": key}).deleted_count:
                return
        except DuplicateKeyError:
            return  # the value is taken on this node already
        except PyMongoError as error:  # nothing is written to a node that is away
            raise AssertionError(f"{name} refused a write: {error}") from error
        self.acknowledged += 1
        self._things.append(
            Write(
                round=self.rounds,
                node=name,
                side=sides[name],
                key=key,
                value=None if kind == "delete" else value,
            )
        )

    # -- judging ------------------------------------------------------------------------------

    def _judge(self) -> list[str]:
        cluster = self.cluster
        try:
            final = {item["_id"]: item["value"] for item in cluster.settle(seconds=60)}
            codes = {item["_id"]: item["code"] for item in cluster.settle("app.codes", seconds=60)}
            lost = cluster.settle("controlone_ha.conflicts", seconds=60)
        except AssertionError as error:
            return [f"the nodes did not become equal: {str(error)[:6000]}"]
        self.kept = len(lost)
        documents = [item["document"] for item in lost]
        kept = {item["value"] for item in documents if "value" in item}
        kept_codes = {item["_id"] for item in documents if "code" in item}
        return [
            *self._judge_things(final, kept),
            *self._judge_codes(codes, kept_codes),
        ]

    def _judge_things(self, final: dict[Any, str], kept: set[str]) -> list[str]:
        problems = []
        for key in range(KEYS):
            writes = [write for write in self._things if write.key == key]
            if not writes:
                continue
            last = writes[-1]
            if self.rounds in self._bracketed_rounds:
                # Whichever side won: its last write is there, that of the other is kept.
                present = [write for write in writes if write.round == self.rounds]
                ends = {write.side: write for write in present}
                values = {write.value for write in ends.values()} | {None}
                if present and final.get(key) not in values:
                    problems.append(f"{key}: {final.get(key)} is no last write of a side")
                for write in ends.values():
                    is_there = final.get(key) == write.value or write.value in kept
                    if write.value is not None and not is_there and len(ends) > 1:
                        problems.append(f"{key}: {write.value} is lost")
                # What won is what later rounds go on from.
                if present and final.get(key) != last.value:
                    winner = next((w for w in ends.values() if w.value == final.get(key)), last)
                    self._things.remove(winner)
                    self._things.append(winner)
                continue
            if final.get(key) != last.value:
                problems.append(f"{key}: {final.get(key)} is there, the last write was {last}")
            problems += self._unkept(key, last, kept)
        return problems

    def _unkept(self, key: int, last: Write, kept: set[str]) -> list[str]:
        """Return whether the last write of the side that lost in this round is missing."""
        if last.round != self.rounds:
            return []
        others = [
            write
            for write in self._things
            if write.key == key and write.round == last.round and write.side != last.side
        ]
        if not others or others[-1].value is None or others[-1].value in kept:
            return []
        return [f"{key}: {others[-1].value} lost unseen against {last.value}, and is not kept"]

    def _judge_codes(self, codes: dict[str, int], kept: set[str]) -> list[str]:
        problems = []
        self.clashes = len(kept)
        for value, (code, order) in self._codes.items():
            if value not in codes and value not in kept:
                problems.append(f"{value} with code {code} is lost")
            if value in codes:
                later = [
                    other
                    for other, (its, when) in self._codes.items()
                    if its == code and when > order and other != value
                ]
                if later and code // CODES not in self._bracketed_rounds:
                    problems.append(f"code {code}: {value} stays, {later[0]} was newer")
        return problems
