"""Deep probe: a real call by SIPp, through pysipp, to see whether a server still handles calls.

INVITE, answer, ACK, a moment, BYE. On demand (`ha probe`) and, where configured, every n-th round;
the everyday probe is OPTIONS (``sip``), which costs a hundredth of this.

Theory of operation. ``deep_probe`` runs in `ha`: it checks every value, and starts
``python -m controlone_ha.probes.deep``, which imports pysipp, runs one SIPp in a temporary folder
and prints what happened as JSON. Neither pysipp nor SIPp is ever in the daemon's loop or memory.
The child leads a process group of its own, which is killed when the time is over, and SIPp with
it. The child dies with `ha`; a SIPp that is left alone ends when its own timeout is over.

What SIPp tells is an exit code and an error file; the file's text becomes the detail. Any final
answer that decides the call (200, 603, 486, 404, …) is ``ANSWERED``: the server works, and
``answer["connected"]`` says whether it took the call. An answer of class 5 is ``REJECTED``: the
server says itself that it cannot. Silence is ``TIMEOUT``. A SIPp that cannot be run is no finding
about the peer and raises ``DeepProbeError``.

pysipp quotes arguments naively, so nothing but what ``_checked`` lets through gets there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlone_ha.core.observations import Outcome, ProbeResult, Service
from controlone_ha.errors import ControlOneError
from controlone_ha.probes.addresses import UnresolvedError, error_text, resolve
from controlone_ha.probes.child import child_environment, die_with_parent

_NUMBER = re.compile(r"[A-Za-z0-9+*_.][A-Za-z0-9+*_.\-]{0,63}")
_STATUS = re.compile(r"received 'SIP/2\.0 (\d{3}) ?([^\r\n']*)")
_SILENCE = re.compile(
    r"receive timeout|max(?:imum)? UDP retrans|Reached maximum retrans|"
    r"[Rr]etransmission limit|exited? due to timeout|overall timeout",
    re.IGNORECASE,
)
_START = 5.0  # seconds for Python, pysipp and SIPp to start and end, on a slow board
_LONGEST = 120.0
_PAUSE_MS = 100

SCENARIO = """<?xml version="1.0" encoding="ISO-8859-1" ?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<scenario name="uac probe">
  <send retrans="500" start_rtd="answer">
    <![CDATA[
      INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=[branch]
      Max-Forwards: 70
      From: <sip:ha-probe@[local_ip]:[local_port]>;tag=[pid]p[call_number]
      To: <sip:[service]@[remote_ip]:[remote_port]>
      Call-ID: [call_id]
      CSeq: 1 INVITE
      Contact: <sip:ha-probe@[local_ip]:[local_port]>
      User-Agent: ControlONE-HA probe
      Content-Type: application/sdp
      Content-Length: [len]

      v=0
      o=ha-probe 1 1 IN IP[local_ip_type] [local_ip]
      s=-
      c=IN IP[media_ip_type] [media_ip]
      t=0 0
      m=audio [media_port] RTP/AVP 8 0
      a=rtpmap:8 PCMA/8000
      a=rtpmap:0 PCMU/8000
    ]]>
  </send>
  <recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="181" optional="true"/>
  <recv response="182" optional="true"/>
  <recv response="183" optional="true"/>
  <recv response="200" rtd="answer" rrs="true"/>
  <send>
    <![CDATA[
      ACK [next_url] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=[branch]
      Max-Forwards: 70
      [routes]
      From: <sip:ha-probe@[local_ip]:[local_port]>;tag=[pid]p[call_number]
      To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
      Call-ID: [call_id]
      CSeq: 1 ACK
      Content-Length: 0

    ]]>
  </send>
  <pause/>
  <send retrans="500">
    <![CDATA[
      BYE [next_url] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=[branch]
      Max-Forwards: 70
      [routes]
      From: <sip:ha-probe@[local_ip]:[local_port]>;tag=[pid]p[call_number]
      To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
      Call-ID: [call_id]
      CSeq: 2 BYE
      Content-Length: 0

    ]]>
  </send>
  <recv response="200"/>
</scenario>
"""


class DeepProbeError(ControlOneError):
    """The probe could not be made on this node: bad value, no SIPp, no pysipp."""

    code = "deep_probe"


async def deep_probe(
    host: str, port: int, number: str, *, timeout: float = 10.0, sipp: str = ""
) -> ProbeResult:
    """Call ``number`` at a SIP server and hang up; ``timeout`` in seconds for its answer.

    ``answer``: ``{"status", "connected"}``; ``rtt_ms``: from INVITE to 200 OK. ``sipp``: the
    program, empty for the one on the PATH. Raises ``DeepProbeError``.
    """
    program = sipp or shutil.which("sipp") or ""
    if not program:
        raise DeepProbeError("sipp is not installed on this node; the deep probe needs it")
    _checked(number, port, timeout)
    try:
        address = await resolve(host, port, timeout=timeout)
        local = _local_address(str(address), port)
    except UnresolvedError as error:
        return _result(Outcome.UNREACHABLE, str(error))
    except OSError as error:
        return _result(Outcome.UNREACHABLE, error_text(error.errno))
    order: dict[str, Any] = {
        "host": str(address),
        "port": port,
        "number": number,
        "timeout": timeout,
        "local": local,
        "sipp": program,
    }
    # Made and removed here: a child that is killed cleans nothing up.
    with tempfile.TemporaryDirectory(prefix="sipp-") as folder:
        order["folder"] = folder
        return _interpret(await _run_child(order, timeout + _START), timeout)


def _checked(number: str, port: int, timeout: float) -> None:
    if not _NUMBER.fullmatch(number):
        raise DeepProbeError(
            f"number to call: got {number!r}, expected 1 to 64 letters, digits or + * _ . -"
        )
    if not 0 < port < 65536:
        raise DeepProbeError(f"port: got {port}, expected 1 to 65535")
    if not 0 < timeout <= _LONGEST:
        raise DeepProbeError(f"timeout: got {timeout}, expected up to {_LONGEST:g} s")


def _local_address(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as scratch:
        scratch.connect((host, port))
        return str(scratch.getsockname()[0])


async def _run_child(order: Mapping[str, Any], patience: float) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "controlone_ha.probes.deep",
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(),
        start_new_session=True,
    )
    try:
        output, errors = await asyncio.wait_for(
            process.communicate(json.dumps(order).encode()), patience
        )
    except TimeoutError as error:
        raise DeepProbeError(f"SIPp did not come back within {patience:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    try:
        told = json.loads(output)
    except ValueError as error:
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        raise DeepProbeError(f"the deep probe failed: {last[0]}") from error
    if not isinstance(told, dict) or "refused" in told:
        raise DeepProbeError(str(told.get("refused", told)))
    return told


def _interpret(told: Mapping[str, Any], timeout: float) -> ProbeResult:
    """Return the result for SIPp's exit code and error file."""
    code, text = int(told["code"]), str(told["errors"])
    rtt = told["rtt_ms"]
    if code == 0:
        return _result(Outcome.ANSWERED, "call answered and ended", 200, rtt)
    statuses = _STATUS.findall(text)
    if statuses:
        status, reason = int(statuses[-1][0]), statuses[-1][1].strip()
        outcome = Outcome.REJECTED if 500 <= status < 600 else Outcome.ANSWERED
        return _result(outcome, f"{status} {reason}".strip(), status, rtt)
    if told["timed_out"] or _SILENCE.search(text):
        if rtt is not None:
            return _result(Outcome.TIMEOUT, f"call answered, but not its end within {timeout:g} s")
        return _result(Outcome.TIMEOUT, f"no answer to INVITE within {timeout:g} s")
    if code == 1:
        return _result(Outcome.REJECTED, f"call failed: {_summary(text)}")
    raise DeepProbeError(f"sipp ended with {code}: {_summary(text)}")


def _result(
    outcome: Outcome, detail: str, status: int | None = None, rtt_ms: float | None = None
) -> ProbeResult:
    answer = {} if status is None else {"status": status, "connected": status == 200}
    return ProbeResult(
        service=Service.CONFERENCE, outcome=outcome, detail=detail, rtt_ms=rtt_ms, answer=answer
    )


def _summary(text: str) -> str:
    """Return the first telling line of SIPp's error file, without its time stamp."""
    for line in text.splitlines():
        line = re.sub(r"^\d{4}-\d\d-\d\d[\s\d:.]*:?\s*", "", line).strip()
        if line:
            return line[:200]
    return "no error text"


# --- in the child -----------------------------------------------------------------------------


def call(order: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Run SIPp once in ``folder``; return ``{"code", "errors", "rtt_ms", "timed_out"}``."""
    from controlone_ha.probes import pysipp_compat

    ipaddress.ip_address(order["host"])
    ipaddress.ip_address(order["local"])
    _checked(order["number"], order["port"], order["timeout"])
    pysipp = pysipp_compat.load()
    scenario_file = folder / "uac_probe.xml"  # pysipp wants uac or uas in the name
    scenario_file.write_text(SCENARIO)
    errors_file = folder / "errors.log"
    milliseconds = int(order["timeout"] * 1000)
    agent = pysipp.client(
        bin_path=order["sipp"],
        scen_file=str(scenario_file),
        local_host=order["local"],
        local_port=_free_port(order["local"]),
        media_addr=order["local"],
        remote_host=order["host"],
        remote_port=order["port"],
        uri_username=order["number"],
        pause_duration=_PAUSE_MS,
    )
    agent.trace_error = True
    agent.error_file = str(errors_file)
    scenario = pysipp.agent.Scenario(
        [agent],
        logdir=str(folder),
        enable_screen_file=False,
        rate=100,
        recv_timeout=milliseconds,
    )
    runner = _runner(pysipp.launch)
    timed_out = False
    try:
        scenario(runner=runner, timeout=order["timeout"] + 2.0, raise_exc=False)
    except pysipp.launch.TimeoutError:
        timed_out = True
    finally:
        runner.poller.close()
    (process,) = runner.get(timeout=0).values()
    text = errors_file.read_text(errors="replace") if errors_file.exists() else ""
    text += process.streams.stderr.decode(errors="replace") if process.streams.stderr else ""
    return {
        "code": process.returncode,
        "errors": text,
        "rtt_ms": _response_time(folder),
        "timed_out": timed_out,
    }


def _runner(launch: Any) -> Any:
    """Return pysipp's runner with our options and a stop that stops."""

    class Runner(launch.PopenRunner):
        def __call__(self, cmds: Any, **options: Any) -> Any:
            # Its control port would listen on all addresses, and its keyboard on our input.
            extra = " -ci 127.0.0.1 -nostdin -trace_rtt -rtt_freq 1"
            return super().__call__([command + extra for command in cmds], **options)

        def stop(self) -> Any:
            stopped = dict(self.iterprocs())
            for process in stopped.values():
                process.kill()  # SIGUSR1, the default, waits for the call to end
            return stopped

    return Runner()


def _free_port(local: str) -> int:
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as scratch:
        scratch.bind((local, 0))
        return int(scratch.getsockname()[1])


def _response_time(folder: Path) -> float | None:
    """Return the milliseconds to 200 OK from SIPp's file of response times (date;ms;name)."""
    for path in folder.glob("*_rtt.csv"):
        for line in path.read_text(errors="replace").splitlines():
            cells = line.split(";")
            with contextlib.suppress(ValueError, IndexError):
                float(cells[0])
                return float(cells[1])
    return None


def main() -> None:
    """Read the order, make the call, print what happened."""
    die_with_parent(int(sys.argv[1]))
    order = json.load(sys.stdin)
    os.chdir(order["folder"])  # SIPp leaves its files where it is started
    try:
        told = call(order, Path(order["folder"]))
    except (ImportError, OSError, ValueError, ControlOneError) as error:
        told = {"refused": f"{type(error).__name__}: {error}"}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
