"""What the takeover figures are measured on: Conference Servers and SIPp parties on loopback.

Every server has an address of its own; a SIPp at 127.0.0.10 is the gateway that calls, one at
127.0.0.11 the consoles' phones. SIPp takes an INVITE with Replaces for a call of its own and writes
down what it replaces, so that it is checked afterwards against the dialogs that were up. Not here:
the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from controlone_ha.core.calls import Call, call_from_json
from controlone_ha.core.takeover import replaces_of
from controlone_ha.errors import LabError
from controlone_ha.lab import parts
from tests.contract.conference_support import Server
from tests.ports import free_port

SCENARIOS = Path(__file__).parent / "scenarios"
GATEWAY, CONSOLES = "127.0.0.10", "127.0.0.11"
SIP_PORT = 5060
SET_UP_RATE = 50
"""Calls a second in which the live calls are made: well below what one Asterisk can."""
BATCH = 200
"""Documents in one ``take``: a line of the socket is bounded."""

MEDIA = """
  <nop>
    <action>
      <exec rtp_stream="{file},-1,8"/>
    </action>
  </nop>
"""
REFUSES = '<nop test="1" next="4"/>'


class Node(Server):
    """A Conference Server at a loopback address of its own."""

    def __init__(self, directory: Path, address: str) -> None:
        self.address = address
        directory.mkdir()
        super().__init__(directory, parts.asterisk(), free_port)
        self.port = SIP_PORT
        self.environment["MALLOC_ARENA_MAX"] = "1"  # as in the lab, and its init script
        self.configure("")

    def configure(self, more: str, options: str = "\toption settle '0'\n") -> None:
        """Write the settings; the gateway is known by its address."""
        (self.directory / "config" / "conference").write_text(
            f"config conference 'default'\n\toption bind '{self.address}'\n"
            f"{options}{more}config gateway 'east'\n\toption host '{GATEWAY}'\n"
        )

    @property
    def descriptors(self) -> int:
        """Files and sockets that Asterisk has open."""
        assert self.asterisk is not None
        return len(os.listdir(f"/proc/{self.asterisk.pid}/fd"))


class Sipp:
    """A SIPp process with one of the scenarios. ``logs``: what it wrote down."""

    def __init__(
        self,
        folder: Path,
        name: str,
        words: Sequence[str],
        *,
        address: str,
        port: int = SIP_PORT,
        scenario: str,
        knows_replaces: bool = True,
        media: Path | None = None,
    ) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        texts = {}
        for which in ("caller", "callee", "visitor"):
            text = (SCENARIOS / f"{which}.xml").read_text()
            if media is not None:
                text = text.replace("<!--MEDIA-->", MEDIA.format(file=media))
            if not knows_replaces:
                text = text.replace("<!--REFUSES-->", REFUSES)
            texts[which] = self.folder / f"{which}.xml"
            texts[which].write_text(text)
        more = ["-oocsf", str(texts["callee"])] if scenario == "caller" else []
        where = ["-i", address, "-p", str(port), "-ci", "127.0.0.1", "-nostdin"]
        # Nobody of these gives a call up by himself: the server does, or the end of the run.
        limits = ["-recv_timeout", "3600000", "-trace_logs", "-trace_err", "-trace_stat"]
        with open(self.folder / "out", "wb") as out:
            self.process = subprocess.Popen(
                [
                    str(parts.sipp_path()), *words, "-sf", str(texts[scenario]), *more, *where,
                    *limits, "-fd", "1", "-buff_size", "4194304",
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TERM": "dumb"},
            )  # fmt: skip

    def replaced(self) -> list[str]:
        """The values of Replaces in what it was sent."""
        texts = [path.read_text(errors="replace") for path in self.folder.glob("*_logs.log")]
        return re.findall(r"^replaces=(?:Replaces:)?[ \t]*(\S+) required=", "\n".join(texts), re.M)

    def count(self, column: str) -> int:
        """The last value of a column of its statistics; ``Name(C)`` is that of the whole run."""
        rows: list[list[str]] = []
        for path in self.folder.glob("*_.csv"):
            rows = [line.split(";") for line in path.read_text().splitlines()]
        if len(rows) < 2 or column not in rows[0]:
            raise LabError(f"SIPp wrote no statistics of {column}")
        return int(rows[-1][rows[0].index(column)])

    @property
    def errors(self) -> str:
        """What it complained of."""
        texts = [path.read_text(errors="replace") for path in self.folder.glob("*_errors.log")]
        return "\n".join(texts)

    def ask_to_end(self) -> None:
        """Let it make no more calls, and end when its last one is over."""
        self.process.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """End it; nothing is said to its partners."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


class World:
    """The parties, and how many calls are made. ``folder`` is of this world alone."""

    def __init__(self, *, has_media: bool = False, knows_replaces: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="c1-", dir="/tmp"))
        self.folder.chmod(0o711)
        self.knows_replaces = knows_replaces
        self.media = self._tone() if has_media else None
        self._sipps: list[Sipp] = []
        self._nodes: list[Node] = []
        self._number = 0

    def _tone(self) -> Path:
        """A second of sound for SIPp: 8,000 bytes of A-law without a header."""
        path = self.folder / "tone.al"
        path.write_bytes(bytes(0x55 ^ (index * 40 & 0xFF) for index in range(8000)))
        return path

    def node(self, name: str, address: str) -> Node:
        """A Conference Server, not started."""
        made = Node(self.folder / name, address)
        self._nodes.append(made)
        return made

    def sipp(self, scenario: str, words: Sequence[str], **options: Any) -> Sipp:
        """A SIPp; it lives as long as the world at the most."""
        self._number += 1
        made = Sipp(
            self.folder,
            f"{scenario}{self._number}",
            words,
            scenario=scenario,
            knows_replaces=self.knows_replaces,
            media=self.media,
            **options,
        )
        self._sipps.append(made)
        return made

    async def talk(self, node: Node, calls: int) -> tuple[list[Call], Sipp, Sipp]:
        """Make calls at a node; return their documents, the gateway and the consoles' phones."""
        desk = self.sipp("callee", [], address=CONSOLES)
        await asyncio.sleep(0.3)
        uri = f"sip:desk@{CONSOLES}:{SIP_PORT}"
        await node.call("consoles", consoles=[{"name": "d", "queues": ["100"], "sip": uri}])
        words = [f"{node.address}:{SIP_PORT}", "-s", "100", "-m", str(calls)]
        words += ["-l", str(calls), "-r", str(SET_UP_RATE)]
        trunk = self.sipp("caller", words, address=GATEWAY)
        limit = time.monotonic() + calls / SET_UP_RATE + 20
        while sum(call["state"] == "up" for call in node.documents.values()) < calls:
            if time.monotonic() > limit or trunk.process.poll() is not None:
                states = sorted(call["state"] for call in node.documents.values())
                raise LabError(
                    f"{states.count('up')} of {calls} calls are up; {trunk.errors[:300]}"
                )
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # the last ACK
        return [call_from_json(document) for document in node.live], trunk, desk

    async def close(self) -> None:
        """End everything that was started here."""
        for sipp in self._sipps:
            sipp.stop()
        for node in self._nodes:
            node.kill("asterisk")
            await node.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    """A world that is gone afterwards."""
    made = World(**options)
    try:
        yield made
    finally:
        await made.close()


def check_replaces(calls: Sequence[Call], *parties: Sipp) -> None:
    """Raise unless every Replaces that was sent names a dialog that was up at that party."""
    known = {replaces_of(leg) for call in calls for leg in call.live_legs()}
    sent = [value for party in parties for value in party.replaced()]
    strange = [value for value in sent if value not in known]
    if strange or not sent:
        raise LabError(f"{len(strange)} of {len(sent)} Replaces name no dialog: {strange[:2]}")
