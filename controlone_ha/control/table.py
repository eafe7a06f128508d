"""Text for a terminal: widths, colours, durations, wrapping and aligned tables. Pure.

A width is counted in terminal columns, so accents, wide characters and colours do not shift what
stands to their right. What comes from another node is cleaned of control characters: a peer must
not be able to drive the terminal of the person who asks about it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ELLIPSIS = "…"
GAP = "  "
NARROW = frozenset("…·–—•→↔√×")
STYLES = {
    "": "",
    "bold": "1",
    "dim": "2",
    "good": "32",
    "warn": "33",
    "bad": "1;31",
}


def clean(text: object) -> str:
    """Return ``text`` in one line without control characters."""
    value = str(text)
    if value.isprintable():
        return value
    return "".join(
        character if character.isprintable() else " " if character.isspace() else "?"
        for character in value
    )


def width(text: str) -> int:
    """Return how many terminal columns ``text`` takes."""
    if text.isascii() or all(mark < "\u0300" or mark in NARROW for mark in text):
        return len(text)
    from unicodedata import combining, east_asian_width

    columns = 0
    for mark in text:
        if combining(mark) or mark in "\u200b\u200c\u200d\ufe0e\ufe0f":
            continue
        columns += 2 if east_asian_width(mark) in "WF" else 1
    return columns


def cut(text: str, columns: int) -> str:
    """Return ``text`` in at most ``columns`` columns, an ellipsis marking what was left out."""
    if width(text) <= columns:
        return text
    return _head(text, columns - 1) + ELLIPSIS if columns > 0 else ""


def _head(text: str, columns: int) -> str:
    while width(text) > columns:
        text = text[:-1]
    return text


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Return ``text`` filled with blanks to ``columns``; ``right`` aligns it to the right."""
    blanks = " " * max(0, columns - width(text))
    return blanks + text if right else text + blanks


def wrap(text: str, columns: int) -> list[str]:
    """Return ``text`` as lines of at most ``columns``, broken at blanks where there are any."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        while width(word) > columns:
            if line:
                lines.append(line)
                line = ""
            head = _head(word, columns) or word[0]
            lines.append(head)
            word = word[len(head) :]
        if line and width(line) + 1 + width(word) > columns:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    if line or not lines:
        lines.append(line)
    return lines


class Paint:
    """Colours, when there is somebody to see them."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, text: str, style: str) -> str:
        """Return ``text`` in ``style`` (a key of STYLES)."""
        number = STYLES[style]
        return f"\x1b[{number}m{text}\x1b[0m" if self.enabled and number and text else text


class Cell:
    """One cell of a table: its text and its style."""

    __slots__ = ("style", "text")

    def __init__(self, text: object, style: str = "") -> None:
        self.text = clean(text)
        self.style = style


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    paint: Paint,
    *,
    columns: int = 100,
    right: frozenset[int] = frozenset(),
    wrap_last: bool = False,
) -> list[str]:
    """Return the lines of a table that fits in ``columns``.

    The widest columns give way first, down to eight. ``right``: indexes aligned to the right.
    ``wrap_last``: the last column is wrapped instead of cut.
    """
    cells = [[Cell(header, "dim") for header in headers], *rows]
    widths = [max(width(row[index].text) for row in cells) for index in range(len(headers))]
    while sum(widths) + len(GAP) * (len(widths) - 1) > columns:
        widest = len(widths) - 1 if wrap_last and widths[-1] > 24 else widths.index(max(widths))
        if widths[widest] <= 8:
            break
        widths[widest] -= 1
    lines: list[str] = []
    for row in cells:
        last = wrap(row[-1].text, widths[-1]) if wrap_last else [cut(row[-1].text, widths[-1])]
        parts = [
            paint(
                pad(cut(cell.text, widths[index]), widths[index], right=index in right), cell.style
            )
            for index, cell in enumerate(row[:-1])
        ]
        final = pad(last[0], widths[-1], right=True) if len(row) - 1 in right else last[0]
        lines.append(_strip(GAP.join([*parts, paint(final, row[-1].style)]), paint))
        indent = " " * (sum(widths[:-1]) + len(GAP) * (len(widths) - 1))
        lines += [indent + paint(more, row[-1].style) for more in last[1:]]
    return lines


def _strip(line: str, paint: Paint) -> str:
    return line if paint.enabled else line.rstrip()


def duration(seconds: float, *, short: bool = False) -> str:
    """Return a duration for a person: ``12 s``, ``3 min 12 s``, ``2 h 5 min``, ``4 d 3 h``.

    ``short`` gives the largest unit alone. Time that has not come yet (a clock was set) is 0 s.
    """
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    for size, name, small_size, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {name}" + (f" {rest} {small}" if rest and not short else "")
    return f"{whole} s"


def milliseconds(value: float | None, *, signed: bool = False) -> str:
    """Return a time in milliseconds with two significant places: ``0.4 ms``, ``-12 ms``."""
    if value is None:
        return "-"
    sign = "+" if signed and value > 0 else ""
    if abs(value) >= 10_000:
        return f"{sign}{value / 1000:.0f} s"
    text = f"{value:.1f}" if abs(value) < 10 else f"{value:.0f}"
    return "0 ms" if text in ("0.0", "-0.0") else f"{sign}{text} ms"
