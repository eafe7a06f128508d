"""What an Asterisk of ours loads, and what keeps its start short. Facts and files, no process.

Theory of operation. Starting Asterisk is on the failover path of a standby node. Measured with
Asterisk 22.10, three quarters of the start and half of the memory go into one thing: it parses
1.6 MB of XML documentation and builds the help of every application from it, only to check the
names of configuration options. ``reduced_data_directory`` makes a data directory with those names
and no prose; everything else in it links to the original. Loading the modules that are used,
about 65 of 280, is the other part. Figures: docs/asterisk.md.

Not here: asterisk.conf, pjsip.conf, ari.conf and the other files that depend on the node's
settings. Standard library only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

MODULES: Sequence[str] = (
    # Configuration and time. Recording and mixing stand still without a timing module.
    "res_timing_timerfd", "res_sorcery_config", "res_sorcery_memory", "res_sorcery_astdb",
    # SIP and RTP.
    "res_pjproject", "res_pjsip", "res_pjsip_session", "chan_pjsip", "res_pjsip_sdp_rtp",
    "res_rtp_asterisk",
    "res_pjsip_endpoint_identifier_ip", "res_pjsip_endpoint_identifier_user",
    "res_pjsip_endpoint_identifier_anonymous",
    "res_pjsip_authenticator_digest", "res_pjsip_outbound_authenticator_digest",
    "res_pjsip_registrar", "res_pjsip_outbound_registration",
    "res_pjsip_caller_id", "res_pjsip_diversion", "res_pjsip_dtmf_info",
    "res_pjsip_header_funcs",  # PJSIP_HEADER: Replaces and Record-Route
    "res_pjsip_nat", "res_pjsip_rfc3326", "res_pjsip_dlg_options",
    # INVITE with Replaces is answered by the module of REFER, which wants that of SUBSCRIBE.
    "res_pjsip_pubsub", "res_pjsip_refer",
    "res_format_attr_opus",
    # ARI. The WebSocket client is a dependency of res_ari since Asterisk 22.
    "res_http_websocket", "res_websocket_client", "res_stasis", "res_stasis_answer",
    "res_stasis_playback", "res_stasis_recording", "res_stasis_snoop",
    "res_ari", "res_ari_model", "res_ari_applications", "res_ari_asterisk", "res_ari_bridges",
    "res_ari_channels", "res_ari_endpoints", "res_ari_events", "res_ari_playbacks",
    "res_ari_recordings",
    "app_stasis",
    # A dialplan of a few lines, and the functions ARI reads dialogs with (EVAL is in func_strings).
    "pbx_config", "func_callerid", "func_channel", "func_strings", "func_base64",
    "func_hangupcause",
    # Bridges. chan_bridge_media is what records a bridge and plays into it.
    "bridge_simple", "bridge_softmix", "bridge_native_rtp", "bridge_holding",
    "bridge_builtin_features", "chan_bridge_media",
    # externalMedia; chan_rtp has an unresolved symbol unless the multicast engine comes first.
    "res_rtp_multicast", "chan_rtp",
    "codec_ulaw", "codec_alaw", "codec_a_mu", "codec_g722", "codec_gsm", "codec_resample",
    "format_wav", "format_pcm", "format_sln", "format_gsm",
)  # fmt: skip
"""Modules to load, in an order that satisfies their dependencies."""

LATE_MODULES: Sequence[str] = ("res_crypto", "res_srtp")
"""Modules that only encrypted media needs. res_srtp alone adds 0.12 s to a start: where no endpoint
encrypts, leave it out; else load it through ARI (``POST /asterisk/modules/res_srtp.so``) once the
start is over, or list it when the first call must be encrypted already."""

UNUSED_MESSAGES: Sequence[str] = (
    "ast_channel_varset_type", "ast_channel_dtmf_begin_type", "ast_channel_dtmf_end_type",
    "ast_channel_hangup_request_type", "ast_rtp_rtcp_sent_type", "ast_rtp_rtcp_received_type",
    "ast_security_event_type", "ast_device_state_message_type", "ast_endpoint_state_type",
    "ast_mwi_state_type", "ast_system_registry_type",
)  # fmt: skip
"""What Asterisk would tell itself about every call for nobody: 15 % of a call's processor time."""

SUPPORT_FILES: Mapping[str, str] = {
    "acl.conf": "",
    "ccss.conf": "[general]\n",
    "cdr.conf": "[general]\nenable=no\n",
    "cel.conf": "[general]\nenable=no\n",
    "features.conf": "[general]\n",
    "indications.conf": (
        "[general]\ncountry=br\n\n[br]\ndescription = Brazil\nringcadence = 1000,4000\n"
        "dial = 425\nbusy = 425/250,0/250\nring = 425/1000,0/4000\n"
        "congestion = 425/250,0/250,425/750,0/250\ncallwaiting = 425/50,0/1000\n"
    ),
    "manager.conf": "[general]\nenabled=no\n",
    "pjproject.conf": "",
    "stasis.conf": "[declined_message_types]\n"
    + "".join(f"decline={name}\n" for name in UNUSED_MESSAGES),
    "udptl.conf": "[general]\n",
    "websocket_client.conf": "",
}
"""Files of astetcdir whose absence Asterisk reports as an error at every start."""

SPOOL_DIRECTORIES: Sequence[str] = ("recording",)
"""Directories below astspooldir that must be there: ARI does not make them and answers 500."""

_DOCUMENTATION = Path("documentation", "core-en_US.xml")
_NAMED = {"application", "function", "manager", "agi"}
_PROSE = {"description", "synopsis", "see-also", "note", "since"}


def modules_file(module_directory: Path, modules: Sequence[str] = MODULES) -> str:
    """Return the text of modules.conf: those of ``modules`` that this Asterisk has.

    Versions differ: Asterisk 16 has no res_websocket_client. What is missing and needed shows
    itself when a module that depends on it does not load.
    """
    lines = ["[modules]", "autoload=no"]
    for name in modules:
        if (module_directory / f"{name}.so").is_file():
            lines.append(f"load={name}.so")
    return "\n".join(lines) + "\n"


def reduced_data_directory(data_directory: Path, target: Path) -> Path:
    """Return what to use as astdatadir: ``target``, with links and the reduced documentation.

    It is made once and again whenever the original documentation has changed (about 0.2 s). An
    Asterisk that came without documentation was built not to need it: its own directory is
    returned. Raises OSError when the target cannot be written, ElementTree.ParseError when the
    documentation is no XML; in both cases ``data_directory`` itself still works, slowly.
    """
    source = data_directory / _DOCUMENTATION
    try:
        stamp = source.stat().st_mtime_ns
    except FileNotFoundError:
        return data_directory
    reduced = target / _DOCUMENTATION
    if not (reduced.is_file() and reduced.stat().st_mtime_ns == stamp):
        reduced.parent.mkdir(parents=True, exist_ok=True)
        _write(reduced, _reduce(source), stamp)
    for entry in data_directory.iterdir():
        link = target / entry.name
        if entry.name != _DOCUMENTATION.parts[0] and not link.is_symlink():
            link.symlink_to(entry)
    return target


def _reduce(source: Path) -> bytes:
    """Return the documentation with names only: options, applications, functions, commands."""
    kept = ElementTree.Element("docs")
    depth = 0
    for event, element in ElementTree.iterparse(source, events=("start", "end")):
        if event == "start":
            depth += 1
            continue
        depth -= 1
        if depth != 1:
            continue
        if element.tag == "configInfo":
            _strip_prose(element)
            kept.append(element)
        elif element.tag in _NAMED:
            # A name without any entry would be one more warning in the log.
            stub = ElementTree.SubElement(kept, element.tag, element.attrib)
            ElementTree.SubElement(stub, "synopsis").text = "-"
            element.clear()
        else:
            element.clear()
    return ElementTree.tostring(kept, encoding="utf-8", xml_declaration=True)


def _strip_prose(element: ElementTree.Element) -> None:
    for child in list(element):
        if child.tag in _PROSE:
            element.remove(child)
        else:
            _strip_prose(child)


def _write(path: Path, content: bytes, stamp: int) -> None:
    """Put the file there whole or not at all, with the modification time of what it came from."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), 0o644)
        os.utime(temporary, ns=(stamp, stamp))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
