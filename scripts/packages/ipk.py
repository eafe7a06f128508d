"""Writes .ipk files and the index of a feed, the same bytes for the same input.

An .ipk is a gzip'd tar of ``debian-binary``, ``data.tar.gz`` and ``control.tar.gz``, as opkg reads
it. Every file belongs to root and has one time stamp; names are sorted; gzip keeps no time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def _add(archive: tarfile.TarFile, name: str, content: bytes | None, mode: int, epoch: int) -> None:
    item = tarfile.TarInfo(name)
    item.mtime = epoch
    item.mode = mode
    item.uname = item.gname = "root"
    if content is None:
        item.type = tarfile.DIRTYPE
        archive.addfile(item)
    else:
        item.size = len(content)
        archive.addfile(item, io.BytesIO(content))


def _packed(entries: Sequence[tuple[str, bytes | None, int]], epoch: int) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content, mode in entries:
            _add(archive, name, content, mode, epoch)
    return gzip.compress(plain.getvalue(), compresslevel=9, mtime=0)


def tree_entries(root: Path) -> list[tuple[str, bytes | None, int]]:
    """Return the entries of a directory tree: name, content (None: a directory) and mode."""
    entries: list[tuple[str, bytes | None, int]] = [("./", None, 0o755)]
    for path in sorted(root.rglob("*"), key=lambda item: item.relative_to(root).as_posix()):
        name = "./" + path.relative_to(root).as_posix()
        if path.is_dir():
            entries.append((name + "/", None, 0o755))
        else:
            entries.append((name, path.read_bytes(), path.stat().st_mode & 0o777))
    return entries


def write_ipk(file: Path, root: Path, control: Mapping[str, bytes], epoch: int) -> None:
    """Write a package: the tree below ``root`` and the files of its control part."""
    executable = {"preinst", "postinst", "prerm", "postrm", "postinst-pkg", "prerm-pkg"}
    members: list[tuple[str, bytes | None, int]] = [("./", None, 0o755)]
    for name, content in sorted(control.items()):
        members.append((f"./{name}", content, 0o755 if name in executable else 0o644))
    outer = [
        ("./debian-binary", b"2.0\n", 0o644),
        ("./data.tar.gz", _packed(tree_entries(root), epoch), 0o644),
        ("./control.tar.gz", _packed(members, epoch), 0o644),
    ]
    file.write_bytes(_packed(outer, epoch))


def read_ipk(file: Path) -> tuple[dict[str, tuple[bytes, int]], dict[str, bytes]]:
    """Return a package's files (content and mode by absolute path) and its control part."""
    with tarfile.open(file) as outer:
        parts = {item.name.lstrip("./"): outer.extractfile(item) for item in outer}
        data, control = parts["data.tar.gz"], parts["control.tar.gz"]
        assert data is not None and control is not None
        found: list[dict[str, tuple[bytes, int]]] = []
        for stream in (data, control):
            with tarfile.open(fileobj=stream, mode="r:gz") as inner:
                files = {}
                for item in inner:
                    content = inner.extractfile(item)
                    if content is not None:
                        files[item.name.removeprefix(".")] = (content.read(), item.mode)
                found.append(files)
    return found[0], {name.lstrip("/"): content for name, (content, _mode) in found[1].items()}


def index_entry(file: Path, control: bytes) -> str:
    """Return what a feed's index says of one package: its control file and where it is."""
    content = file.read_bytes()
    head, _, description = control.decode().partition("Description:")
    return (
        f"{head}Filename: {file.name}\nSize: {len(content)}\n"
        f"SHA256sum: {hashlib.sha256(content).hexdigest()}\nDescription:{description}\n"
    )
