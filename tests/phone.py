"""A telephone for tests: UDP, one call at a time each way, RTP with a tone, everything noted.

It is no SIP stack: it speaks what the tests need with a server on loopback, where nothing is lost.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import math
import re
import struct
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

RATE = 8000
FRAME = 160


@dataclass
class Dialog:
    """One call of a phone."""

    call_id: str
    request: str
    peer: tuple[str, int]
    local: str = ""
    remote: str = ""
    target: str = ""
    is_caller: bool = False
    cseq: int = 1
    remote_cseq: int = 0
    statuses: list[int] = field(default_factory=list)
    reason: str = ""
    state: str = "new"
    replaced: Dialog | None = None
    early: str = ""
    """To with the tag of a provisional answer: what the early dialog is called."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        """True when it was up, or nearly, and is no more."""
        return self.state in ("ended", "cancelled", "refused")

    @property
    def key(self) -> str:
        """The call id as part of a branch."""
        return self.call_id.replace("@", "-")


class Phone(asyncio.DatagramProtocol):
    """A phone at ``address``. ``answer``: seconds until it answers, None: never; ``refuse``: status
    it refuses with; ``silent``: it does not react at all; ``ignores_require``: it takes a
    replacement for a new call, as some phones do; ``knows_replaces``: it does as RFC 3891 says.
    """

    def __init__(
        self,
        name: str,
        *,
        answer: float | None = 0.0,
        refuse: int = 0,
        silent: bool = False,
        tone: int = 0,
        rings: bool = True,
        password: str = "",
        ignores_require: bool = False,
        knows_replaces: bool = False,
        address: str = "127.0.0.1",
        codec: str = "PCMU",
    ) -> None:
        self.name = name
        self.address = address
        self.ignores_require = ignores_require
        self.knows_replaces = knows_replaces
        self.answer_after = answer
        self.refuse = refuse
        self.silent = silent
        self.rings = rings
        self.password = password
        self.tone = tone
        self.calls: list[Dialog] = []
        self.cancelled = 0
        self.messages: list[str] = []
        self.port = 0
        self.media = Media(tone, codec)
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0

    async def start(self) -> Phone:
        """Bind the sockets."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(self.address, 0))
        await loop.create_datagram_endpoint(lambda: self.media, local_addr=(self.address, 0))
        return self

    def stop(self) -> None:
        """Close the sockets."""
        for task in self._tasks:
            task.cancel()
        self.media.stop()
        if self._transport is not None:
            self._transport.close()

    @property
    def uri(self) -> str:
        """Its SIP address."""
        return f"sip:{self.name}@{self.address}:{self.port}"

    @property
    def contact(self) -> str:
        """Where requests of its dialogs are to go."""
        return self.uri

    @property
    def call(self) -> Dialog:
        """Its last call."""
        return self.calls[-1]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the port."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """React to a message."""
        text = data.decode(errors="replace")
        self.messages.append(text)
        if self.silent:
            return
        if text.startswith("SIP/2.0 "):
            self._answered(text)
        else:
            self._asked(text, addr)

    # --- called ----------------------------------------------------------------------------------

    def _asked(self, text: str, addr: tuple[str, int]) -> None:
        method = text.split(" ", 1)[0]
        call_id = header(text, "Call-ID")
        dialog = next((item for item in self.calls if item.call_id == call_id), None)
        takes_it = self.ignores_require or self.knows_replaces
        if method == "INVITE" and "replaces" in header(text, "Require") and not takes_it:
            self._respond(text, addr, 420, header(text, "To"))  # RFC 3261, section 8.2.2.3
            return
        if method == "INVITE" and header(text, "Replaces") and self.knows_replaces:
            self._replaced(text, addr, dialog)
            return
        if dialog is not None and tag_of(header(text, "To")) and method in ("INVITE", "BYE"):
            fault = self._fault(dialog, text)
            if fault:
                self._respond(text, addr, fault, header(text, "To"))
                return
        if method == "INVITE" and dialog is None and self._challenges(text, addr):
            return
        if method == "INVITE" and dialog is None:
            self._spawn(self._decide(self._called(text, addr)))
        elif method == "INVITE" and dialog is not None and self.refuse:
            self._respond(text, addr, self.refuse, header(text, "To"))
        elif method == "INVITE" and dialog is not None and dialog.state == "up":
            dialog.request, dialog.peer = text, addr
            dialog.target = uri_of(header(text, "Contact")) or dialog.target
            self.media.send_to(media_address(text))
            self._reply(dialog, 200, sdp=True)
        elif method == "CANCEL" and dialog is not None:
            self._respond(text, addr, 200, header(text, "To"))
            if dialog.state in ("new", "ringing"):
                self.cancelled += 1
                dialog.state = "cancelled"
                self._reply(dialog, 487)
                dialog.ended.set()
        elif method == "BYE" and dialog is not None:
            self._respond(text, addr, 200, header(text, "To"))
            self._over(dialog)
        elif method == "ACK" and dialog is not None and dialog.state == "up":
            dialog.answered.set()
            if dialog.replaced is not None:
                old, dialog.replaced = dialog.replaced, None
                self.hang_up(old)
                if not old.is_over:
                    old.state = "cancelled"  # nobody may be there to say 487
        elif method in ("OPTIONS", "BYE"):
            self._respond(text, addr, 481 if method == "BYE" else 200, header(text, "To"))

    def _called(self, text: str, addr: tuple[str, int]) -> Dialog:
        dialog = Dialog(header(text, "Call-ID"), text, addr)
        dialog.local = f"{header(text, 'To')};tag=p{len(self.calls)}{self.port}"
        dialog.remote = header(text, "From")
        dialog.target = uri_of(header(text, "Contact"))
        dialog.remote_cseq = int(header(text, "CSeq").split()[0])
        self.calls.append(dialog)
        return dialog

    def _fault(self, dialog: Dialog, text: str) -> int:
        """Return how a request inside a dialog is refused, 0: it is not (RFC 3261, 12.2.2)."""
        ours, theirs = tag_of(header(text, "To")), tag_of(header(text, "From"))
        if (ours, theirs) != (tag_of(dialog.local), tag_of(dialog.remote)):
            return 481
        if dialog.is_over:  # a call that was refused or cancelled has left no dialog either
            return 481
        number = int(header(text, "CSeq").split()[0])
        is_again = header(text, "Via") == header(dialog.request, "Via")
        if number < dialog.remote_cseq or (number == dialog.remote_cseq and not is_again):
            return 500
        dialog.remote_cseq = number
        return 0

    def _replaced(self, text: str, addr: tuple[str, int], known: Dialog | None) -> None:
        """Take an INVITE with Replaces (RFC 3891, section 3)."""
        if known is not None:  # sent again: the answer was on its way
            if known.state == "up":
                self._reply(known, 200, sdp=True)
            return
        value = header(text, "Replaces")
        tags = dict(re.findall(r";[ \t]*(to-tag|from-tag)=([^;\s]+)", value))
        old = next((item for item in self.calls if item.call_id == value.split(";")[0]), None)
        is_known = old is not None and (tags.get("to-tag"), tags.get("from-tag")) == (
            tag_of(old.local),
            tag_of(old.remote) or tag_of(old.early),
        )
        is_mine = old is not None and old.is_caller and bool(old.early)  # RFC 3891, section 3
        if old is None or not is_known or not (old.state == "up" or old.is_over or is_mine):
            self._respond(text, addr, 481, header(text, "To"))
            return
        if old.is_over or any(item.replaced is old for item in self.calls):
            self._respond(text, addr, 603, f"{header(text, 'To')};tag=over")
            return
        if old.state == "up" and "early-only" in value:
            self._respond(text, addr, 486, f"{header(text, 'To')};tag=answered")
            return
        if self.refuse:
            self._respond(text, addr, self.refuse, f"{header(text, 'To')};tag=refused")
            return
        dialog = self._called(text, addr)
        dialog.replaced = old
        self.pick_up(dialog)

    def _challenges(self, text: str, addr: tuple[str, int]) -> bool:
        """Ask for credentials (RFC 2617, no qop) unless right ones are there."""
        if not self.password:
            return False
        given = dict(re.findall(r'(\w+)="?([^",]+)', header(text, "Authorization")))
        if given:
            first = md5(f"{given['username']}:phone:{self.password}")
            second = md5(f"INVITE:{given['uri']}")
            if given["response"] == md5(f"{first}:{NONCE}:{second}"):
                return False
        challenge = f'WWW-Authenticate: Digest realm="phone", nonce="{NONCE}", algorithm=MD5'
        self._respond(text, addr, 401, f"{header(text, 'To')};tag=challenge", extra=challenge)
        return True

    async def _decide(self, dialog: Dialog) -> None:
        if self.refuse:
            dialog.state = "refused"
            self._reply(dialog, self.refuse)
            dialog.ended.set()
            return
        if self.rings:
            dialog.state = "ringing"
            self._reply(dialog, 180)
        if self.answer_after is None:
            return
        await asyncio.sleep(self.answer_after)
        if dialog.state in ("new", "ringing"):
            self.pick_up(dialog)

    def pick_up(self, dialog: Dialog) -> None:
        """Answer a call."""
        dialog.state = "up"
        self.media.send_to(media_address(dialog.request))
        self._reply(dialog, 200, sdp=True)

    def _reply(self, dialog: Dialog, status: int, *, sdp: bool = False) -> None:
        self._respond(dialog.request, dialog.peer, status, dialog.local, sdp=sdp)

    def _respond(
        self,
        request: str,
        addr: tuple[str, int],
        status: int,
        to: str,
        *,
        sdp: bool = False,
        extra: str = "",
    ) -> None:
        lines = [f"SIP/2.0 {status} {REASONS.get(status, 'Other')}"]
        lines += [f"Via: {value}" for value in headers(request, "Via")]
        lines += [f"Record-Route: {value}" for value in headers(request, "Record-Route")]
        lines += [
            f"From: {header(request, 'From')}",
            f"To: {to}",
            f"Call-ID: {header(request, 'Call-ID')}",
            f"CSeq: {header(request, 'CSeq')}",
            f"Contact: <{self.contact}>",
        ]
        if extra:
            lines.append(extra)
        self._send(lines, addr, self._sdp() if sdp else "")

    def _over(self, dialog: Dialog) -> None:
        dialog.state = "ended"
        dialog.ended.set()
        if not any(item.state == "up" for item in self.calls):
            self.media.pause()

    # --- calling ---------------------------------------------------------------------------------

    def dial(
        self,
        number: str,
        port: int,
        extra: Mapping[str, str] | None = None,
        *,
        host: str = "127.0.0.1",
    ) -> Dialog:
        """Call ``number`` at host:port."""
        self._number += 1
        dialog = Dialog(f"{self._number}-{self.port}@phone", "", (host, port))
        dialog.is_caller = True
        dialog.local = f"{ODD_NAME} <{self.uri}>;tag=c{self._number}{self.port}"
        dialog.remote = f"<sip:{number}@{host}:{port}>"
        dialog.target = f"sip:{number}@{host}:{port}"
        self.calls.append(dialog)
        lines = self._request_lines(dialog, "INVITE", 1, f"z9hG4bK-{dialog.key}")
        lines += [f"{name}: {value}" for name, value in (extra or {}).items()]
        dialog.request = "\r\n".join(lines)
        self._send(lines, dialog.peer, self._sdp())
        return dialog

    def _answered(self, text: str) -> None:
        call_id = header(text, "Call-ID")
        dialog = next((item for item in self.calls if item.call_id == call_id), None)
        if dialog is None or not header(text, "CSeq").endswith("INVITE"):
            return
        status = int(text[8:11])
        dialog.statuses.append(status)
        if status < 200:
            dialog.state = "ringing" if status == 180 else dialog.state
            dialog.early = header(text, "To") if tag_of(header(text, "To")) else dialog.early
            return
        dialog.remote = header(text, "To")
        if status < 300:
            dialog.target = uri_of(header(text, "Contact")) or dialog.target
            lines = self._request_lines(dialog, "ACK", 1, f"z9hG4bK-ack-{dialog.key}")
            self._send(lines, dialog.peer, "")
            if dialog.state != "up":
                dialog.state = "up"
                self.media.send_to(media_address(text))
            dialog.answered.set()
        else:
            dialog.reason = header(text, "Reason")
            lines = self._request_lines(dialog, "ACK", 1, f"z9hG4bK-{dialog.key}")
            lines[0] = f"ACK {dialog.request.split(' ')[1]} SIP/2.0"
            self._send(lines, dialog.peer, "")
            dialog.state = "refused"
            dialog.ended.set()

    def hang_up(self, dialog: Dialog) -> None:
        """End a call: BYE, or CANCEL while it rings."""
        if dialog.state == "up":
            dialog.cseq += 1
            branch = f"z9hG4bK-{dialog.cseq}-{dialog.key}"
            self._send(self._request_lines(dialog, "BYE", dialog.cseq, branch), dialog.peer, "")
            self._over(dialog)
        elif dialog.is_caller:
            lines = self._request_lines(dialog, "CANCEL", 1, f"z9hG4bK-{dialog.key}")
            self._send(lines, dialog.peer, "")

    def _request_lines(self, dialog: Dialog, method: str, cseq: int, branch: str) -> list[str]:
        return [
            f"{method} {dialog.target} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.address}:{self.port};branch={branch};rport",
            "Max-Forwards: 70",
            f"From: {dialog.local}",
            f"To: {dialog.remote}",
            f"Call-ID: {dialog.call_id}",
            f"CSeq: {cseq} {method}",
            f"Contact: <{self.contact}>",
        ]

    # --- wire ------------------------------------------------------------------------------------

    def _send(self, lines: list[str], addr: tuple[str, int], body: str) -> None:
        if body:
            lines = [*lines, "Content-Type: application/sdp"]
        text = "\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n" + body
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(text.encode(), addr)

    def _sdp(self) -> str:
        return (
            f"v=0\r\no=phone 1 1 IN IP4 {self.address}\r\ns=-\r\n"
            f"c=IN IP4 {self.address}\r\nt=0 0\r\n"
            f"m=audio {self.media.port} RTP/AVP {self.media.payload}\r\n"
            f"a=rtpmap:{self.media.payload} {self.media.codec}/8000\r\n"
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Media(asyncio.DatagramProtocol):
    """RTP of a phone, G.711 u-law (PCMU) or A-law (PCMA): sends a tone, counts and keeps what
    arrives.
    """

    def __init__(self, tone: int, codec: str = "PCMU") -> None:
        self.tone = tone
        self.codec = codec
        self.payload = {"PCMU": 0, "PCMA": 8}[codec]
        self.port = 0
        self.received = 0
        self.sound = bytearray()
        self._transport: asyncio.DatagramTransport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the port."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Count a packet."""
        self.received += 1
        self.sound += data[12:]

    def tail(self, count: int) -> list[int]:
        """Return the last samples that arrived, linear; fewer when there were not so many."""
        decode = {"PCMU": linear, "PCMA": linear_of_alaw}[self.codec]
        return [decode(byte) for byte in self.sound[-count:]]

    def send_to(self, address: tuple[str, int] | None) -> None:
        """Begin to send the tone."""
        self.pause()
        if address is not None and self.tone:
            self._task = asyncio.ensure_future(self._send(address))

    def pause(self) -> None:
        """Send nothing more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def stop(self) -> None:
        """Close."""
        self.pause()
        if self._transport is not None:
            self._transport.close()

    async def _send(self, address: tuple[str, int]) -> None:
        number = 0
        loop = asyncio.get_running_loop()
        start = loop.time()
        frames = tone_frames(self.tone, self.codec)
        while True:
            head = struct.pack(
                "!BBHII", 0x80, self.payload, number & 0xFFFF, number * FRAME, self.port
            )
            if self._transport is not None:
                self._transport.sendto(head + frames[number % len(frames)], address)
            number += 1
            await asyncio.sleep(max(0.0, start + number * 0.02 - loop.time()))


@functools.cache
def tone_frames(tone: int, codec: str) -> tuple[bytes, ...]:
    """Return a second of a tone (whole Hz) as G.711, 20 ms each: it can be repeated."""
    samples = [round(8000 * math.sin(2 * math.pi * tone * i / RATE)) for i in range(RATE)]
    sound = bytes(map({"PCMU": ulaw, "PCMA": alaw}[codec], samples))
    return tuple(sound[start : start + FRAME] for start in range(0, RATE, FRAME))


NONCE = "0123456789abcdef"


def md5(text: str) -> str:
    """Return what digest authentication calls H."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def ulaw(sample: int) -> int:
    """Return a linear sample as G.711 u-law."""
    sign = 0x80 if sample < 0 else 0
    value = min(abs(sample), 32635) + 132
    exponent = value.bit_length() - 8
    return ~(sign | exponent << 4 | value >> (exponent + 3) & 0x0F) & 0xFF


def alaw(sample: int) -> int:
    """Return a linear sample as G.711 A-law."""
    sign = 0x80 if sample >= 0 else 0
    value = min(abs(sample), 32767) >> 3
    exponent = max(value.bit_length() - 5, 0)
    mantissa = value >> max(exponent, 1) & 0x0F
    return (sign | exponent << 4 | mantissa) ^ 0x55


def linear_of_alaw(byte: int) -> int:
    """Return a G.711 A-law byte as linear sample."""
    byte ^= 0x55
    exponent, mantissa = byte >> 4 & 7, byte & 0x0F
    value = (mantissa << 4) + 8
    if exponent:
        value = value + 256 << (exponent - 1)
    return value if byte & 0x80 else -value


def linear(byte: int) -> int:
    """Return a G.711 u-law byte as linear sample."""
    byte = ~byte & 0xFF
    value = ((byte & 0x0F) << 3) + 132 << (byte >> 4 & 7)
    return (132 - value) if byte & 0x80 else (value - 132)


def strength(samples: list[int], tone: int) -> float:
    """Return how much of the sound is the tone, 0 to 1 (Goertzel)."""
    if not samples:
        return 0.0
    turn = 2 * math.cos(2 * math.pi * tone / RATE)
    before, last = 0.0, 0.0
    for sample in samples:
        before, last = last, sample + turn * last - before
    power = before * before + last * last - turn * before * last
    total = sum(sample * sample for sample in samples) * len(samples) / 2
    return power / total if total else 0.0


def headers(text: str, name: str) -> list[str]:
    """Return the values of a header."""
    return re.findall(rf"^{name}[ \t]*:[ \t]*(.*?)\r?$", text, re.MULTILINE | re.IGNORECASE)


def header(text: str, name: str) -> str:
    """Return the first value of a header, "" without one."""
    return next(iter(headers(text, name)), "")


def uri_of(value: str) -> str:
    """Return the URI of a name-addr."""
    found = re.search(r"<([^<>]*)>[^<>]*$", value)
    return found[1] if found else value


def tag_of(value: str) -> str:
    """Return the tag of From or To, "" without one."""
    found = re.search(r";[ \t]*tag=([^;\s]+)", value)
    return found[1] if found else ""


def media_address(text: str) -> tuple[str, int] | None:
    """Return where the other side wants its RTP."""
    host = re.search(r"^c=IN IP4 (\S+)", text, re.MULTILINE)
    port = re.search(r"^m=audio (\d+)", text, re.MULTILINE)
    return (host[1], int(port[1])) if host and port else None


ODD_NAME = r'"Desk | \"two\" <2>"'
"""What every caller is called: as odd as a display name may be (RFC 3261, section 25.1)."""

REASONS = {
    180: "Ringing",
    200: "OK",
    401: "Unauthorized",
    403: "Forbidden",
    420: "Bad Extension",
    481: "Unknown",
    486: "Busy Here",
    488: "Not Acceptable Here",
    487: "Request Terminated",
    503: "Service Unavailable",
    603: "Decline",
}
