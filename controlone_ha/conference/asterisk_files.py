"""The configuration of the node's Asterisk, as text: settings in, files out. Pure.

Nothing of the distribution is read or edited: Asterisk is started with a configuration directory
of its own. The modules and support files come from ``asterisk_modules``; here is what depends on
the node: addresses, directories, the control interface.

Calls are handed to the controller (``Stasis``); what Asterisk answers by itself:

* OPTIONS from anybody, to a user that begins with a letter, a digit, +, * or #, or to none: 200,
  by the endpoint ``anonymous`` and a dialplan in which such extensions exist. Peers' watchdogs ask
  this.
* INVITE while no controller is connected: 503 (hangup cause 34), so that a gateway tries another
  server; INVITE without a number: 404;
* INVITE to ``ha-probe``: answered, silent, ended after two seconds: peers' call probes.

Sources: Asterisk's configuration reference for res_pjsip, res_http, res_ari; RFC 3261 section 11.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controlone_ha.conference.asterisk_modules import SUPPORT_FILES
from controlone_ha.conference.dialog_fields import CALLER_EXPRESSION
from controlone_ha.core.observations import CALL_PROBE_NUMBER
from controlone_ha.errors import ConfigError

ARI_USER = "controlone"
ARI_APPLICATION = "controlone"
PASSWORDS = "pjsip_passwords.conf"
TLS_CERTIFICATE = "node.crt"
TLS_KEY = "node.key"


CONSOLE_ENDPOINT = "console"
"""Endpoint through which any SIP address without a gateway is called."""


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A gateway as an endpoint of Asterisk."""

    name: str
    host: str
    port: int = 5060
    transport: str = "udp"
    username: str = ""
    password: str = field(default="", repr=False)
    codecs: tuple[str, ...] = ()
    """Empty: those of the engine."""

    @property
    def uri(self) -> str:
        """SIP URI of the gateway, without a user."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        suffix = "" if self.transport == "udp" else f";transport={self.transport}"
        return f"sip:{host}:{self.port}{suffix}"

    def uri_of(self, number: str) -> str:
        """SIP URI of a number there."""
        return self.uri.replace("sip:", f"sip:{number}@", 1)


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What the files are made from. Addresses are numeric: nothing is looked up at a start."""

    bind: str
    """Local address of SIP; empty: all IPv4 addresses."""
    port: int
    media_address: str
    """Address that RTP is bound to and announced with; empty: that of SIP, or the route's."""
    ari_port: int
    ari_password: str
    directory: Path
    """Where everything of this Asterisk lies."""
    module_directory: Path
    data_directory: Path
    codecs: tuple[str, ...] = ("alaw", "ulaw", "g722")
    gateways: tuple[Gateway, ...] = ()
    tls_port: int = 0
    """0: no SIP over TLS; else certificate and key lie in ``directory``/etc."""

    def __post_init__(self) -> None:
        for option, value in (("bind", self.bind), ("media_address", self.media_address)):
            if value:
                try:
                    ipaddress.ip_address(value)
                except ValueError as error:
                    raise ConfigError(
                        f"conference.default.{option}: got {value!r}, expected an IP address"
                    ) from error


def file_texts(settings: EngineSettings, modules_text: str) -> Mapping[str, str]:
    """Return the files of the configuration directory: name -> text."""
    return {
        **SUPPORT_FILES,
        "asterisk.conf": _asterisk(settings),
        "modules.conf": modules_text,
        "logger.conf": "[general]\n[logfiles]\nconsole => warning,error\n",
        "pjsip.conf": _pjsip(settings),
        "rtp.conf": (
            "[general]\nrtpstart=10000\nrtpend=20000\nicesupport=no\nstrictrtp=yes\n"
            "rtpchecksums=no\n"
        ),
        PASSWORDS: _pjsip_auth(settings),
        "extensions.conf": (
            "[general]\nstatic=yes\nwriteprotect=yes\n\n"
            # Base64: no character of a stranger's header can become part of an argument list.
            "[incoming]\n"
            "exten => s,1,Hangup(1)\nexten => h,1,NoOp()\n"
            f"exten => _[+*#0-9a-zA-Z]!,1,Stasis({ARI_APPLICATION},in,"
            f"${{BASE64_ENCODE({CALLER_EXPRESSION})}})\n"
            # Only a call that nobody led is refused here; what the controller has decided stands.
            ' same => n,GotoIf($["${STASISSTATUS}" != "FAILED"]?over)\n'
            " same => n,Hangup(34)\n same => n(over),NoOp()\n"
            f"exten => {CALL_PROBE_NUMBER},1,Answer()\n"
            " same => n,Wait(2)\n same => n,Hangup(16)\n"
        ),
        "http.conf": (
            "[general]\nenabled=yes\nbindaddr=127.0.0.1\n"
            f"bindport={settings.ari_port}\nenable_static=no\nsessionlimit=64\n"
            "session_keep_alive=30000\n"
        ),
        "ari.conf": (
            f"[general]\nenabled=yes\npretty=no\n\n[{ARI_USER}]\ntype=user\nread_only=no\n"
            f"password={settings.ari_password}\npassword_format=plain\n"
        ),
    }


def _asterisk(settings: EngineSettings) -> str:
    base = settings.directory
    directories = {
        "astetcdir": base / "etc",
        "astmoddir": settings.module_directory,
        "astdatadir": settings.data_directory,
        "astvarlibdir": base / "lib",
        "astdbdir": base / "lib",
        "astkeydir": base / "lib",
        "astagidir": base / "lib",
        "astcachedir": base / "cache",
        "astspooldir": base / "spool",
        "astrundir": base / "run",
        "astlogdir": base / "log",
    }
    lines = [f"{name} => {place}" for name, place in directories.items()]
    return (
        "[directories]\n" + "\n".join(lines) + "\n\n"
        "[options]\nnocolor=yes\nlive_dangerously=no\ndumpcore=no\nlightbackground=no\n"
        # Finds a channel by its id in a map; the default looks through all of them (from 22.5 on;
        # releases before that do not know the option and pass it over).
        "channel_storage_backend=cpp_map_name_id\n"
    )


def _pjsip(settings: EngineSettings) -> str:
    media = settings.media_address or settings.bind
    endpoint = [
        "type=endpoint",
        "context=incoming",
        "disallow=all",
        _allow(settings.codecs),
        "send_connected_line=no",
        "direct_media=no",
        "rtp_symmetric=yes",
    ]
    if media:
        endpoint += [f"media_address={media}", "bind_rtp_to_media_address=yes"]
    where = _bind(settings.bind, settings.port)
    sections = [
        (
            "global",
            [
                "type=global",
                "user_agent=ControlONE Conference Server",
                "endpoint_identifier_order=ip,username,anonymous",
                # By default a burst on the control interface makes SIP drop new calls in silence.
                "taskprocessor_overload_trigger=pjsip_only",
                "max_forwards=70",
            ],
        ),
        ("udp", ["type=transport", "protocol=udp", f"bind={where}"]),
        ("tcp", ["type=transport", "protocol=tcp", f"bind={where}"]),
        ("anonymous", endpoint),
        (CONSOLE_ENDPOINT, endpoint),
    ]
    if settings.tls_port:
        etc = settings.directory / "etc"
        tls = [
            "type=transport",
            "protocol=tls",
            f"bind={_bind(settings.bind, settings.tls_port)}",
            f"cert_file={etc / TLS_CERTIFICATE}",
            f"priv_key_file={etc / TLS_KEY}",
            "method=tlsv1_2",
        ]
        sections.append(("tls", tls))
    for gateway in settings.gateways:
        sections += _gateway(gateway, endpoint)
    text = "\n".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections)
    return f"{text}\n#include {PASSWORDS}\n"


def _gateway(gateway: Gateway, endpoint: list[str]) -> list[tuple[str, list[str]]]:
    """Return the sections of a gateway: endpoint, digest authentication, recognition by address."""
    name = f"gateway-{gateway.name}"
    lines = [*endpoint, f"transport={gateway.transport}"]
    if gateway.codecs:
        lines = [line for line in lines if not line.startswith("allow=")]
        lines.append(_allow(gateway.codecs))
    sections = [(name, lines)]
    if gateway.username:
        lines.append(f"outbound_auth={name}")
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(gateway.host)  # a name would be looked up while Asterisk starts
        sections.append((name, ["type=identify", f"endpoint={name}", f"match={gateway.host}"]))
    return sections


def _allow(codecs: Sequence[str]) -> str:
    return f"allow={','.join(codecs)}"


def _pjsip_auth(settings: EngineSettings) -> str:
    """Return the passwords at the gateways: a file of its own, which only Asterisk may read."""
    return "\n".join(
        f"[gateway-{gateway.name}]\ntype=auth\nauth_type=digest\n"
        f"username={gateway.username}\npassword={_escaped(gateway.password)}\n"
        for gateway in settings.gateways
        if gateway.username
    )


def _escaped(text: str) -> str:
    """Return a value for Asterisk's configuration, where a semicolon begins a comment."""
    return text.replace("\\", "\\\\").replace(";", "\\;")


def _bind(address: str, port: int) -> str:
    if not address:
        return f"0.0.0.0:{port}"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
