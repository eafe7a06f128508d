"""Inserts and replacements of many raw documents, each in one command.

pymongo's ``bulk_write`` makes an object, a check and a list entry of each document, which costs
more than the rest of a copy; here the driver encodes one command. What a unique index refuses is
raised as pymongo's ``BulkWriteError``, with the server's details, as ``bulk_write`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError, WriteConcernError

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

COMMAND_BYTES = 8 << 20
"""A command is one document of 16 MB at most."""
COMMAND_COUNT = 10_000


def insert(
    database: Database[Any],
    name: str,
    documents: Sequence[RawBSONDocument],
    *,
    session: ClientSession | None = None,
    is_ordered: bool = True,
) -> None:
    """Insert documents past the validator of the collection.

    Raises ``BulkWriteError`` with ``writeErrors`` for what is refused; all others are inserted
    unless ``is_ordered``.
    """
    errors: list[Any] = []
    for part in _parts(documents):
        command = {
            "insert": name,
            "documents": part,
            "ordered": is_ordered,
            "bypassDocumentValidation": True,
        }
        errors += _run(database, command, session)
        if errors and is_ordered:
            break
    if errors:
        raise BulkWriteError({"writeErrors": errors})


def replace(
    database: Database[Any],
    name: str,
    documents: Sequence[tuple[Any, RawBSONDocument]],
    *,
    session: ClientSession | None = None,
) -> None:
    """Replace documents, given as (id, new one), which are there; none is made anew."""
    sizes = [document for _, document in documents]
    at = 0
    for part in _parts(sizes):
        updates = [
            {"q": {"_id": identity}, "u": document}
            for identity, document in documents[at : at + len(part)]
        ]
        at += len(part)
        errors = _run(database, {"update": name, "updates": updates, "ordered": False}, session)
        if errors:
            raise BulkWriteError({"writeErrors": errors})


def _parts(documents: Sequence[RawBSONDocument]) -> list[list[RawBSONDocument]]:
    parts: list[list[RawBSONDocument]] = []
    size = COMMAND_BYTES
    for document in documents:
        length = len(document.raw)
        if size + length > COMMAND_BYTES or len(parts[-1]) >= COMMAND_COUNT:
            parts.append([])
            size = 0
        parts[-1].append(document)
        size += length
    return parts


def _run(
    database: Database[Any], command: dict[str, Any], session: ClientSession | None
) -> list[Any]:
    if session is None:
        command = {**command, "writeConcern": database.write_concern.document}
    answer: dict[str, Any] = database.command(
        command, session=session, codec_options=DEFAULT_CODEC_OPTIONS
    )
    trouble = answer.get("writeConcernError")
    if trouble:
        raise WriteConcernError(str(trouble.get("errmsg")), trouble.get("code"), trouble)
    return list(answer.get("writeErrors") or ())
