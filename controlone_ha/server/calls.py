"""Calls of the consoles that are connected here, carried to Conference Servers.

A call is controlled where it is anchored, which may be another node; a new one goes to the server
of the ``conference`` setting that has the fewest calls (or to the next in turn), and one that
refuses or is gone is skipped at once. Consoles are told of every change of their own calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from controlone_ha.errors import PeerError
from controlone_ha.jsonrpc import INVALID_PARAMS, RpcError
from controlone_ha.server.conference_links import ConferenceLink, is_refusal
from controlone_ha.server.door import NO_CONFERENCE

Json = dict[str, Any]

UNKNOWN_CALL = -32021
NO_ANSWER = -32022


class CallCarrier:
    """Carries call methods over ``links``; ``tell(console, CALL)`` notifies a console."""

    def __init__(
        self,
        links: Sequence[ConferenceLink],
        tell: Callable[[str, Json], None],
        *,
        spread: str = "least_calls",
        anchored: Sequence[ConferenceLink] = (),
    ) -> None:
        self._links = list(links)
        """New calls go to these."""
        self._all = [*self._links, *(link for link in anchored if link not in self._links)]
        self._tell = tell
        self._spread = spread
        self._turn = itertools.count()
        self._told: dict[tuple[str, str], Json] = {}
        for link in self._all:
            link.on_call = self.call_changed

    @property
    def links(self) -> list[ConferenceLink]:
        """Every Conference Server that is followed."""
        return self._all

    async def handle(self, console: str, sip: str, method: str, params: Json) -> Json:
        """Carry a console's request; raise ``RpcError``."""
        if method == "calls":
            return {"calls": self.calls_of(console)}
        if method == "dial":
            return await self._dial(console, sip, params)
        call_id = _text(params, "id")
        link = next((item for item in self._all if call_id in item.calls), None)
        if link is None:
            raise RpcError(UNKNOWN_CALL, f"no call {call_id[:64]!r} here", {"code": "unknown_call"})
        document = link.calls[call_id]
        leg = leg_of(document, console)
        if leg is None:
            raise RpcError(UNKNOWN_CALL, "this console is not in that call", {"code": "not_in"})
        wanted: Json = {"call": call_id, "console": console}
        if method == "hangup":
            method, wanted = "remove", {"call": call_id, "leg": leg["id"]}
        elif method == "transfer":
            to = _text(params, "to")
            wanted["to"] = {"console": to} if _is_console(to) else {"number": to}
        try:
            await link.ask(method, wanted)
        except PeerError as error:
            raise _no_conference(str(error)) from error
        except TimeoutError as error:
            raise RpcError(NO_ANSWER, f"{link.name} does not answer", {"code": "no_answer"}) from (
                error
            )
        return {}

    async def _dial(self, console: str, sip: str, params: Json) -> Json:
        wanted = {"console": console, "sip": sip, "number": _text(params, "number")}
        if isinstance(params.get("queue"), str):
            wanted["queue"] = params["queue"]
        said = "no Conference Server is joined to this Console Server"
        for link in self._in_order():
            try:
                document = await link.ask("dial", wanted)
            except TimeoutError as error:  # it may have been done: nobody else is asked
                text = f"{link.name} does not answer"
                raise RpcError(NO_ANSWER, text, {"code": "no_answer"}) from error
            except (PeerError, OSError, RpcError) as error:
                if not is_refusal(error):
                    raise
                said = str(error)
                continue
            link.calls.setdefault(str(document["id"]), document)
            return {"id": document["id"]}
        raise _no_conference(said)

    def _in_order(self) -> list[ConferenceLink]:
        links = [link for link in self._links if link.is_up]
        if self._spread == "round_robin" and links:
            first = next(self._turn) % len(links)
            return links[first:] + links[:first]
        return sorted(links, key=lambda link: len(link.calls))

    def calls_of(self, console: str) -> list[Json]:
        """Return the live calls of a console."""
        found = []
        for link in self._all:
            for document in link.calls.values():
                view = view_of(document, console)
                if view is not None and view["state"] != "ended":
                    found.append(view)
        return found

    def console_came(self, console: str) -> None:
        """Tell a console that has just logged in which calls it has."""
        for view in self.calls_of(console):
            self._told[console, view["id"]] = view
            self._tell(console, view)

    def call_changed(self, _link: ConferenceLink, document: Json) -> None:
        """Tell the consoles of a call what has changed for them."""
        consoles = {leg["party"] for leg in document["legs"] if leg["role"] == "console"}
        consoles |= {name for name, call_id in self._told if call_id == document["id"]}
        for console in consoles:
            key = console, str(document["id"])
            view = view_of(document, console)
            before = self._told.get(key)
            if view is None or view == before or (before is None and view["state"] == "ended"):
                continue
            if view["state"] == "ended":
                del self._told[key]
            else:
                self._told[key] = view
            self._tell(console, view)


def leg_of(document: Json, console: str) -> Json | None:
    """Return the live leg of a console in a call."""
    return next(
        (
            leg
            for leg in document["legs"]
            if leg["role"] == "console" and leg["party"] == console and leg["state"] != "ended"
        ),
        None,
    )


def view_of(document: Json, console: str) -> Json | None:
    """Return a call as that console sees it (docs/console-protocol.md); None: it is none of its."""
    is_out = document["direction"] == "out"
    mine = [leg for leg in document["legs"] if leg["role"] == "console" and leg["party"] == console]
    if not mine:
        return None
    leg = leg_of(document, console)
    if leg is None or document["state"] in ("ended", "lost"):
        state = "ended" if document["state"] != "lost" else "lost"
    elif leg["hold"] == "local":
        state = "held"
    elif document["state"] in ("queued", "ringing"):
        state = "dialing" if is_out else "ringing"
    else:
        state = "ringing" if leg["state"] == "early" else "up"
    return {
        "id": document["id"],
        "queue": document["queue"],
        "state": state,
        "number": document["number"] if is_out else document["caller"],
        "since": (leg or mine[-1])["since"],
    }


def _is_console(name: str) -> bool:
    """Tell a console's name from a number: a number has digits and signs alone."""
    return any(letter.isalpha() for letter in name)


def _text(params: Json, name: str) -> str:
    value = params.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 128:
        raise RpcError(INVALID_PARAMS, f"{name}: expected a text", {"field": name})
    return value


def _no_conference(text: str) -> RpcError:
    return RpcError(NO_CONFERENCE, text, {"code": "no_conference"})
