"""The peer bridge: the forced command of a peer's key; joins its SSH channel to the local daemon.

Run as a file: ``python3 -I -S bridge.py --socket PATH NAME``. One process per link that this node
has accepted, so it imports nothing of the package and next to nothing else. It understands nothing
of what it carries: it says to the daemon who the SSH server let in (one line of JSON,
``{"peer": NAME, "ssh_connection": "…"}``), then copies bytes both ways until either side ends.
When the daemon is not there it answers with one GOODBYE frame (docs/link.md) of code ``no_daemon``.

Exit status: 0 either side ended; 3 the daemon is not running; 64 wrong usage.
"""

import _socket
import os
import select
import sys

GOODBYE = 0x0A
EXIT_ENDED = 0
EXIT_NO_DAEMON = 3
EXIT_USAGE = 64
CHUNK = 65536
LINGER_MS = 2000


def goodbye(code: str, sentence: str) -> bytes:
    """Return one GOODBYE frame. ``code`` and ``sentence`` need no escaping."""
    payload = f'{{"code":"{code}","sentence":"{sentence}"}}'.encode()
    return len(payload).to_bytes(4, "big") + bytes([GOODBYE]) + payload


def preamble(name: str, ssh_connection: str) -> bytes:
    """Return the line that tells the daemon who is there, and through which addresses."""
    safe = "".join(c for c in ssh_connection[:200] if c.isalnum() or c in ".:% -")
    return f'{{"peer":"{name}","ssh_connection":"{safe}"}}\n'.encode()


def copy(channel_in: int, channel_out: int, daemon_socket: _socket.socket) -> None:
    """Copy both ways until either side ends; at most one chunk waits in each direction.

    The end of one side is passed on at once, and what the other still says is delivered as long
    as somebody takes it in time: that is how a GOODBYE or a refusal arrives.
    """
    daemon = daemon_socket.fileno()
    for descriptor in (channel_in, channel_out, daemon):
        os.set_blocking(descriptor, False)
    to_daemon, to_channel = b"", b""
    in_open, out_open, daemon_open, told_daemon = True, True, True, False
    while (out_open or in_open or to_daemon) and (daemon_open or to_channel):
        if not (in_open or to_daemon or told_daemon):
            told_daemon = True
            try:
                daemon_socket.shutdown(_socket.SHUT_WR)
            except OSError:
                return
        poll = select.poll()  # made anew each turn: no stale interest
        wanted = {
            channel_in: select.POLLIN if in_open and daemon_open and not to_daemon else 0,
            daemon: (select.POLLIN if daemon_open and out_open and not to_channel else 0)
            | (select.POLLOUT if to_daemon else 0),
        }
        if out_open:
            # Always, if only to learn that nobody reads any more.
            wanted[channel_out] = select.POLLOUT if to_channel else 0
        for descriptor, events in wanted.items():
            if events or descriptor == channel_out:
                poll.register(descriptor, events)
        one_sided = not (in_open and out_open and daemon_open)
        ready = dict(poll.poll(LINGER_MS if one_sided else None))
        if not ready:
            return
        if ready.get(channel_out, 0) & (select.POLLERR | select.POLLHUP):
            to_channel, out_open = b"", False
        if wanted[channel_in] and ready.get(channel_in, 0):
            to_daemon, in_open = read(channel_in)
        if wanted[daemon] & select.POLLIN and ready.get(daemon, 0) and out_open:
            to_channel, daemon_open = read(daemon)
        # Written at once where possible, which saves a turn of the loop.
        if to_daemon:
            sent = write(daemon, to_daemon)
            if sent < 0:
                to_daemon, in_open = b"", False
            to_daemon = to_daemon[max(sent, 0) :]
        if to_channel:
            sent = write(channel_out, to_channel)
            if sent < 0:
                to_channel, out_open = b"", False
            to_channel = to_channel[max(sent, 0) :]


def read(descriptor: int) -> tuple[bytes, bool]:
    """Return what is there and whether more may come."""
    try:
        data = os.read(descriptor, CHUNK)
    except BlockingIOError:
        return b"", True
    except OSError:
        return b"", False
    return data, bool(data)


def write(descriptor: int, data: bytes) -> int:
    """Return how many bytes were taken; -1 when the other side is gone."""
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        return 0
    except OSError:
        return -1


def main(arguments: list[str]) -> int:
    """Run the bridge; ``arguments`` is ``["--socket", PATH, NAME]``."""
    if len(arguments) != 3 or arguments[0] != "--socket":
        sys.stderr.write("usage: bridge.py --socket PATH NAME\n")
        return EXIT_USAGE
    path, name = arguments[1], arguments[2]
    daemon = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        try:
            daemon.connect(path)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            os.write(1, goodbye("no_daemon", f"ha is not running ({reason})"))
            return EXIT_NO_DAEMON
        os.write(daemon.fileno(), preamble(name, os.environ.get("SSH_CONNECTION", "")))
        copy(0, 1, daemon)
        return EXIT_ENDED
    finally:
        daemon.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
