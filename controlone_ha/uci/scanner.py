"""Cutting UCI text into words: libuci's rules, to the byte. Knows words, not statements.

Theory of operation. One *logical line* is worked on at a time. It starts as one physical line; a
quote that is still open at its end, or a backslash before the newline, appends the next physical
line (the backslash form drops backslash and newline). Words are made of joined pieces: bare
characters, ``'literal'``, ``"escaped"``, ``\\c``. ``#`` at the start of a piece drops the rest of
the line, ``;`` ends a statement.

Three habits of libuci follow from its working in place in a C buffer and are kept, because files
are read the same way by both or not at all:

- the rest of the line after a bare word directly followed by ``;`` is lost (a quoted word, or a
  blank before the ``;``, keeps it);
- a NUL byte cuts a line, and what follows it is lost up to the next newline or up to the next
  doubling of the buffer, whichever comes first, so the buffer's size is followed here too;
- the byte given in error messages is the offset in that buffer.
"""

from __future__ import annotations

import io
import re
from typing import BinaryIO, Protocol

from controlone_ha.uci.errors import UciParseError

_SPACE = re.compile(rb"[ \t\n\v\f\r]*")
_BARE = re.compile(rb"""[^ \t\n\v\f\r'"\\;#]*""")
_DOUBLE = re.compile(rb'[^"\\]*')
_BLANKS = re.compile(rb"[ \t]*")
_WORD = re.compile(rb"[^ \t]*")
_SPACES = frozenset(b" \t\n\v\f\r")
_SINGLE_QUOTE, _DOUBLE_QUOTE, _BACKSLASH, _SEMICOLON, _HASH = b"""'"\\;#"""
_NEWLINE, _RETURN = b"\n\r"
_FIRST_CAPACITY = 32
# Where libuci's doubling overflows (thirty NUL bytes do that) and it hangs; nothing longer is read.
_LARGEST_CAPACITY = 2**30


class _Source(Protocol):
    """What a stream reads from."""

    def readline(self, size: int = -1, /) -> bytes: ...
    def read(self, size: int = -1, /) -> bytes: ...


class Stream:
    """A byte source read line by line, with C's rule for end of file: only a short read tells.

    ``consumed`` counts the bytes taken so far.
    """

    def __init__(self, source: BinaryIO | bytes) -> None:
        self._source: _Source = io.BytesIO(source) if isinstance(source, bytes) else source
        self.at_end = False
        self.consumed = 0

    def piece(self, size: int) -> bytes:
        """Return what is left of the current line, at most ``size`` bytes; b"" at the end."""
        data = self._source.readline(size)
        self.consumed += len(data)
        if len(data) < size and not data.endswith(b"\n"):
            self.at_end = True
        return data

    def rest(self) -> bytes:
        """Return all that is left without consuming it."""
        data = self._source.read()
        self._source = io.BytesIO(data)
        return data

    def skip(self, count: int) -> None:
        """Consume ``count`` bytes of what ``rest`` returned."""
        self.consumed += len(self._source.read(count))


class ScanError(UciParseError):
    """A statement could not be read; the scanner holds line and byte too."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Scanner:
    """The logical line being read, and the place in it.

    ``line`` counts the newline-terminated lines read so far, ``position`` is the offset in the
    logical line, ``reason`` and ``byte`` describe the last error.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.line = 0
        self.position = 0
        self.reason: str | None = None
        self.byte = 0
        self._buffer = bytearray()
        self._capacity = _FIRST_CAPACITY
        self._open_line = False

    @property
    def shown_line(self) -> int:
        """The number an editor gives to the line being read (a last line may lack its newline)."""
        return self.line + 1 if self._open_line else max(self.line, 1)

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is left of the logical line."""
        return self.position >= len(self._buffer)

    def fail(self, reason: str) -> ScanError:
        """Note ``reason`` at this place and return the error to raise."""
        self.reason = reason
        self.byte = self.position
        return ScanError(reason)

    def next_line(self) -> bool:
        """Start a new logical line. Tell whether there is anything in it."""
        self.position = 0
        self._read(0)
        return bool(self._buffer)

    def command(self) -> bytes | None:
        """Return the next command word and step behind it, None at the end of the line.

        Only blanks and tabs separate it from what follows; a newline would belong to it.
        """
        start = _end(_BLANKS, self._buffer, self.position)
        end = _end(_WORD, self._buffer, start)
        if start == end:
            return None
        return bytes(self._buffer[start:end])

    def step_behind(self, word: bytes) -> bool:
        """Move behind the command ``word`` and its separator; False if the line ends with it."""
        end = _end(_BLANKS, self._buffer, self.position) + len(word) + 1
        if end > len(self._buffer):
            return False
        self.position = end
        return True

    def skip_space(self) -> None:
        """Move to the next character that is no white space."""
        self.position = _end(_SPACE, self._buffer, self.position)

    def argument(self) -> bytes:
        """Return the next word of the statement, b"" if there is none.

        Raises ScanError if the text ends inside quotes.
        """
        self.skip_space()
        buffer = self._buffer
        if self.position < len(buffer) and buffer[self.position] == _SEMICOLON:
            self.position += 1
            return b""
        start = self.position
        pieces: list[bytes] = []
        while True:
            ended = self._piece(pieces)
            if ended or self.position >= len(buffer) or buffer[self.position] in _SPACES:
                break
        word = b"".join(pieces)
        if self.position < len(buffer):
            if buffer[self.position] != _SEMICOLON:
                self.position += 1
            elif self.position - start == len(word):
                # Nothing was unquoted, so libuci's end-of-word mark lands on the semicolon.
                del buffer[self.position :]
        return word

    def _piece(self, pieces: list[bytes]) -> bool:
        """Read one piece of a word; True if the word ends here whatever follows."""
        buffer = self._buffer
        if self.position >= len(buffer):
            return True
        character = buffer[self.position]
        if character == _SINGLE_QUOTE:
            self._single_quoted(pieces)
        elif character == _DOUBLE_QUOTE:
            self._double_quoted(pieces)
        elif character == _HASH:
            del buffer[self.position :]
            return True
        elif character == _SEMICOLON:
            return True
        elif character == _BACKSLASH:
            if self._backslash():
                self._take(pieces, self.position + 1)
        else:
            self._take(pieces, max(_end(_BARE, buffer, self.position), self.position + 1))
        return False

    def _take(self, pieces: list[bytes], end: int) -> None:
        pieces.append(bytes(self._buffer[self.position : end]))
        self.position = end

    def _single_quoted(self, pieces: list[bytes]) -> None:
        self.position += 1
        while True:
            end = self._buffer.find(b"'", self.position)
            if end >= 0:
                self._take(pieces, end)
                self.position += 1
                return
            self._take(pieces, len(self._buffer))
            self._read(self.position)
            if self.position >= len(self._buffer):
                raise self.fail("EOF with unterminated '")

    def _double_quoted(self, pieces: list[bytes]) -> None:
        self.position += 1
        while True:
            self._take(pieces, _end(_DOUBLE, self._buffer, self.position))
            if self.position >= len(self._buffer):
                self._read(self.position)
                if self.position >= len(self._buffer):
                    raise self.fail('EOF with unterminated "')
            elif self._buffer[self.position] == _DOUBLE_QUOTE:
                self.position += 1
                return
            elif self._backslash():
                self._take(pieces, self.position + 1)

    def _backslash(self) -> bool:
        """Step over a backslash. True if the character behind it is to be taken literally."""
        self.position += 1
        left = self._buffer[self.position : self.position + 3]
        if not left or left[0] == _NEWLINE or left == b"\r\n":
            self._read(self.position)
            return False
        return True

    def _read(self, offset: int) -> None:
        """Put the next physical line at ``offset``, in the pieces in which libuci reads it."""
        buffer = self._buffer
        del buffer[offset:]
        if offset >= self._capacity - 1:
            self._capacity *= 2
        while True:
            piece = self.stream.piece(max(self._capacity - offset - 1, 1))
            nul = piece.find(0)
            if nul >= 0:
                piece = piece[:nul]
            if not piece:
                return
            buffer += piece
            offset += len(piece)
            self._open_line = piece[-1] != _NEWLINE
            if not self._open_line:
                self.line += 1
                return
            self._capacity = min(self._capacity * 2, _LARGEST_CAPACITY)


def _end(pattern: re.Pattern[bytes], buffer: bytearray, position: int) -> int:
    """Return where ``pattern``, which matches at least nothing, ends from ``position``."""
    match = pattern.match(buffer, position)
    return position if match is None else match.end()
