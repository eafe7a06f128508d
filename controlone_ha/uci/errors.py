"""What can go wrong with a UCI file or request, with the status numbers libuci gives them.

Every error here is a :class:`controlone_ha.errors.UciError`. ``status`` is libuci's error number,
which is also the exit code where the `uci` command returns it; ``text`` is libuci's word for it.
"""

from __future__ import annotations

from enum import IntEnum

from controlone_ha.errors import UciError


class Status(IntEnum):
    """libuci's error numbers (``uci.h``)."""

    INVALID = 2
    NOT_FOUND = 3
    IO = 4
    PARSE = 5
    DUPLICATE = 6


STATUS_TEXT = {
    Status.INVALID: "Invalid argument",
    Status.NOT_FOUND: "Entry not found",
    Status.IO: "I/O error",
    Status.PARSE: "Parse error",
    Status.DUPLICATE: "Duplicate entry",
}


class UciFault(UciError):
    """A UCI request failed; ``status`` says how in libuci's terms."""

    status = Status.INVALID

    @property
    def text(self) -> str:
        """libuci's word for this kind of error, as `uci` prints it."""
        return STATUS_TEXT[self.status]


class UciInvalidError(UciFault):
    """The request cannot be carried out as it stands (missing section, bad type, no value)."""

    status = Status.INVALID


class UciNotFoundError(UciFault):
    """There is no such package, section or option."""

    status = Status.NOT_FOUND


class UciIoError(UciFault):
    """A file could not be opened, written or renamed."""

    status = Status.IO


class UciParseError(UciFault):
    """A reference such as ``package.section.option=value`` does not follow the grammar."""

    status = Status.PARSE


class UciDuplicateError(UciFault):
    """The same package appears twice in one import."""

    status = Status.DUPLICATE


class UciSyntaxError(UciParseError):
    """A configuration text does not follow the grammar; ``str()`` reads ``file:line: what``.

    ``line`` counts from 1 and is the line an editor shows. ``counted_line`` and ``byte`` are the
    numbers libuci prints: lines ended by a newline so far, and the offset in its line buffer.
    """

    def __init__(self, *, file: str, line: int, reason: str, counted_line: int, byte: int) -> None:
        super().__init__(f"{file}:{line}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason
        self.counted_line = counted_line
        self.byte = byte
