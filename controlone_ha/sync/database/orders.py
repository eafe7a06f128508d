"""What a person may ask of a running synchroniser: compare, differences, conflicts, forget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bson.datetime_ms import DatetimeMS
from pymongo.errors import PyMongoError

from controlone_ha.errors import RefusedError
from controlone_ha.sync.database.documents import PLAIN
from controlone_ha.sync.database.namespaces import LANES, OWN
from controlone_ha.sync.database.setup import rotate_certificates, shut_out

if TYPE_CHECKING:
    from controlone_ha.sync.database.engine import Run


def sync(run: Run) -> dict[str, Any]:
    """Have every peer that can be reached compared in full."""
    for reader in run.readers.values():
        reader.ask_full()
    return {"peers": sorted(run.readers)}


def rotate(run: Run, *, is_somebody_out: bool) -> dict[str, Any]:
    """Have the own mongod read its certificate files again; ``is_somebody_out``: and have every
    peer log in anew.
    """
    rotate_certificates(run.client)
    if is_somebody_out:
        shut_out(run.client, run.settings.reader_password)
    return {}


def diff(run: Run, peer: str) -> dict[str, Any]:
    """Return how many documents differ from ``peer``, by collection and kind; moves none."""
    reader = run.readers.get(peer)
    if reader is None:
        raise RefusedError(f"{peer} is not read by this node")
    try:
        return {"peer": peer, "collections": reader.compare(apply=False)}
    except PyMongoError as error:
        raise RefusedError(f"{peer}: {reader.find_trouble(error).detail}") from error


def forget(run: Run, peer: str) -> dict[str, Any]:
    """Forget how far a node that will not return has read; keep no tombstones for it."""
    if peer in run.readers:
        raise RefusedError(f"{peer} is still in the list of peers: take it out first")
    ids = [f"progress/{peer}/{lane}" for lane in LANES] + [f"reader/{peer}"]
    found = run.store.state.delete_many({"_id": {"$in": ids}}).deleted_count
    return {"peer": peer, "released": int(found)}


def conflicts(run: Run, limit: int) -> list[dict[str, Any]]:
    """Return the newest conflicts."""
    collection = run.store.client.get_database(OWN, codec_options=PLAIN)["conflicts"]
    fields = {"namespace": 1, "key": 1, "lost": 1, "won": 1}
    found = collection.find({}, fields, sort=[("won.at", -1)], limit=limit)
    return [
        {
            "id": str(item["_id"]),
            "namespace": item["namespace"],
            "document": str(item["key"].get("_id")),
            "lost": _version(item["lost"]),
            "won": _version(item["won"]),
        }
        for item in found
    ]


def _version(raw: dict[str, Any]) -> dict[str, Any]:
    at = raw["at"]
    seconds = int(at) / 1000 if isinstance(at, DatetimeMS) else float(at.timestamp())
    return {"node": raw["node"], "at": seconds}
