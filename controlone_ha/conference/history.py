"""What the database keeps of calls: a document for each that is over, one for each recording.

``controlone.history``: ``{"_id": CALL, "node", "generation", "direction", "queue", "number",
"caller", "priority", "created", "answered", "ended", "seconds", "reason", "parties": [{"role",
"party", "gateway", "call_id", "since"}], "recording"}``. ``controlone.recordings``: the document
beside the file. Times are dates; ``seconds`` is the length of the talk.
"""

from __future__ import annotations

from typing import Any

from controlone_ha.core.calls import Call
from controlone_ha.records.spool import HISTORY, RECORDINGS, Spool, date

JsonObject = dict[str, Any]


class History:
    """Puts calls and recordings into the queue for the database."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def call_ended(self, call: Call) -> None:
        """Keep a call that is over."""
        self._spool.add(HISTORY, history_of(call))

    def recorded(self, document: JsonObject) -> None:
        """Keep the document of a recording that is over."""
        times = {name: date(document.get(name)) for name in ("start", "end")}
        self._spool.add(RECORDINGS, {**document, **times})


def history_of(call: Call) -> JsonObject:
    """Return the document of a call that is over, for the database."""
    return {
        "_id": call.id,
        "node": call.owner,
        "generation": call.generation,
        "direction": call.direction,
        "queue": call.queue,
        "number": call.number,
        "caller": call.caller,
        "priority": call.priority,
        "created": date(call.created),
        "answered": date(call.answered),
        "ended": date(call.changed),
        "seconds": None if call.answered is None else round(call.changed - call.answered, 3),
        "reason": call.reason,
        "parties": [
            {
                "role": leg.role,
                "party": leg.party,
                "gateway": leg.gateway,
                "call_id": leg.call_id,
                "since": date(leg.since),
            }
            for leg in call.legs
        ],
        "recording": None if call.recording is None else str(call.recording.get("name", "")),
    }
