"""The one line of a session description that an adopted dialog has to change. Pure.

Inside a dialog every description of one side has the same origin, and its version says whether
anything changed (RFC 3264, 8). The adopting node's engine begins with an origin of its own, so the
line ``o=`` that the party has seen before is continued. All else, the media address above all,
passes as it is: media flows between the engine and the party.
"""

from __future__ import annotations

import re

_ORIGIN = re.compile(rb"^o=(\S+) (\S+) ([0-9]{1,20}) (\S+ \S+ \S+?)[ \t]*(\r?)$", re.MULTILINE)


def continued(previous: bytes, body: bytes) -> bytes:
    """Return ``body`` with the origin of ``previous``, what the party was sent last (empty:
    unknown). Its version is raised when anything else differs. What is no description is returned
    as it is.
    """
    old, new = _ORIGIN.search(previous), _ORIGIN.search(body)
    if old is None or new is None:
        return body
    is_same = _rest(previous, old) == _rest(body, new)
    version = int(old[3]) + (0 if is_same else 1)
    line = b"o=%s %s %d %s%s" % (old[1], old[2], version, old[4], new[5])
    return body[: new.start()] + line + body[new.end() :]


def _rest(body: bytes, origin: re.Match[bytes]) -> bytes:
    text = body[: origin.start()] + body[origin.end() :]
    return text.replace(b"\r", b"").strip()
