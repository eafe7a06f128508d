"""Recordings: begun and ended with a call, repaired after a crash, described by a document each.

A recording is one or more segments: one WAV file (8 kHz, mono, 16 bit) for each stretch of the
call that one server recorded, beside it a JSON document with the same name. Files lie in a folder
for each day, so that nothing has to list them all. When Asterisk dies, the lengths in the header of
a running WAV are zero; ``repair`` sets them from the file's size.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import struct
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controlone_ha.conference.engine import Engine, EngineError, Recorded
from controlone_ha.conference.recorder import ExternalRecorder

if TYPE_CHECKING:
    from controlone_ha.conference.live_call import LiveCall

log = logging.getLogger("recordings")

JsonObject = dict[str, Any]

HEADER = 44
FINISH_WAIT = 2.0


class Recordings:
    """The recordings of this node, below ``directory``."""

    def __init__(self, engine: Engine, directory: Path, node: str) -> None:
        self._engine = engine
        self._directory = directory
        self._node = node
        self.recorder = ExternalRecorder(engine, node)
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[str, str] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self.on_described: Callable[[JsonObject], None] = lambda document: None
        """Told of the document of every recording that is over."""

    async def begin(self, call: LiveCall) -> None:
        """Record a call that is up; raise ``EngineError``."""
        document = call.document
        if document.id in self._running:
            return
        now = time.time()
        segment = int((document.recording or {}).get("segment", 0)) + 1
        day = time.strftime("%Y-%m-%d", time.gmtime(document.created))
        name = f"{day}/{document.id}-{document.generation}.{segment}"
        # Of a call that came from another server while its consoles go on sending.
        kept = (document.recording or {}).get("session") if self.recorder.is_by_consoles else None
        await self._engine.record(document.room, name)
        self._running[document.id] = name
        self._ended[name] = asyncio.Event()
        call.change(
            recording={
                "name": name,
                "segment": segment,
                "since": now,
                "node": self._node,
                "running": True,
                "session": kept or name,
            }
        )
        if kept is None:
            self._spawn(self._start_copy(call, name, segment))

    async def _start_copy(self, call: LiveCall, name: str, segment: int) -> None:
        await self.recorder.start(call.document, name, segment)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run beside the call: no recorder holds one up."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a recording", exc_info=task.exception())

    async def finish(self, call: LiveCall) -> None:
        """End a call's recording and describe it."""
        name = self._running.pop(call.document.id, None)
        if name is None:
            return
        known = dict(call.document.recording or {})
        segment = int(known.get("segment", 1))
        session = str(known.pop("session", name))
        self._spawn(self.recorder.stop(call.document, session, segment))
        event = self._ended.get(name)
        with contextlib.suppress(EngineError, TimeoutError):
            await self._engine.stop_recording(name)
            if event is not None:
                await asyncio.wait_for(event.wait(), FINISH_WAIT)
        self._ended.pop(name, None)
        recording = {**known, "running": False}
        call.change(publish=False, recording=recording)
        document = {
            "_id": name,
            "call": call.document.id,
            "node": self._node,
            "queue": call.document.queue,
            "number": call.document.number,
            "caller": call.document.caller,
            "parties": sorted({leg.party for leg in call.document.legs}),
            "segment": recording.get("segment"),
            "generation": call.document.generation,
            "start": recording.get("since"),
            "end": time.time(),
        }
        # An hour of sound takes a while to read: the parties are not kept waiting for it.
        self._spawn(self._describe(name, document))

    async def _describe(self, name: str, document: JsonObject) -> None:
        loop = asyncio.get_running_loop()
        complete = await loop.run_in_executor(None, describe, self._directory, name, document)
        if complete is not None:
            self.on_described(complete)

    async def close(self) -> None:
        """Let what is being described get done; what does not is done by the next ``sweep``."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FINISH_WAIT)

    def resume(self, call: LiveCall) -> None:
        """The recording of a call that a restarted controller found is still running."""
        recording = call.document.recording
        if recording and recording.get("running"):
            name = str(recording["name"])
            self._running[call.document.id] = name
            self._ended[name] = asyncio.Event()

    def forget(self, call_id: str) -> None:
        """The engine died with this call: what is on disk is repaired by ``sweep``."""
        name = self._running.pop(call_id, None)
        if name is not None:
            self._ended.pop(name, None)

    def ended(self, event: Recorded) -> None:
        """The engine has closed a file."""
        if event.is_failed:
            log.error("recording %s failed", event.name)
        waiting = self._ended.get(event.name)
        if waiting is not None:
            waiting.set()

    def is_running(self, call_id: str) -> bool:
        """Tell whether a call is being recorded."""
        return call_id in self._running

    def sweep(self) -> list[JsonObject]:
        """Repair and describe what a dead engine left; return the documents."""
        running = set(self._running.values())
        repaired = []
        for path in self._directory.glob("*/*.wav"):
            name = f"{path.parent.name}/{path.stem}"
            if name in running or path.with_suffix(".json").exists():
                continue
            with contextlib.suppress(OSError, ValueError):
                repair(path)
                call, _, rest = path.stem.rpartition("-")
                generation, _, segment = rest.partition(".")
                document = {
                    "_id": name,
                    "call": call,
                    "node": self._node,
                    "generation": int(generation),
                    "segment": int(segment),
                    "end": path.stat().st_mtime,
                    "repaired": True,
                }
                complete = describe(self._directory, name, document)
                if complete is not None:
                    repaired.append(complete)
        return repaired


def describe(directory: Path, name: str, document: JsonObject) -> JsonObject | None:
    """Write the document beside a recording, with length and checksum; None: there is no file."""
    path = directory / f"{name}.wav"
    try:
        with open(path, "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            rate, data = sound_of(file.read(HEADER), size)
    except OSError as error:
        log.error("recording %s: %s", name, error)
        return None
    complete = {
        **document,
        "file": f"{name}.wav",
        "bytes": size,
        "seconds": round(data / (2 * rate), 3) if rate else 0.0,
        "sha256": checksum,
    }
    target = path.with_suffix(".json")
    temporary = target.with_suffix(".json.new")
    temporary.write_text(json.dumps(complete, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, target)
    return complete


def sound_of(header: bytes, size: int) -> tuple[int, int]:
    """Return sample rate and bytes of sound of a WAV of ``size`` bytes as Asterisk writes it;
    (0, 0): it is none.
    """
    if len(header) < HEADER or header[:4] != b"RIFF" or header[8:12] != b"WAVE":
        return 0, 0
    (rate,) = struct.unpack_from("<I", header, 24)
    return rate, size - HEADER


def repair(path: Path) -> bool:
    """Set the lengths in a WAV's header from the file's size; return whether they were wrong.

    Raises ``ValueError`` for what is no WAV with a header of 44 bytes (PCM, RIFF).
    """
    with open(path, "r+b") as file:
        header = file.read(HEADER)
        if len(header) < HEADER or header[:4] != b"RIFF" or header[36:40] != b"data":
            raise ValueError(f"{path}: no WAV file")
        size = path.stat().st_size
        data = (size - HEADER) & ~1
        if struct.unpack_from("<I", header, 40)[0] == data:
            return False
        file.seek(4)
        file.write(struct.pack("<I", 36 + data))
        file.seek(40)
        file.write(struct.pack("<I", data))
        file.flush()
        os.fsync(file.fileno())
    return True
