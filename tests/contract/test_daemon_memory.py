"""What `ha` remembers over restarts, on a real file system."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controlone_ha.core.effects import KnownPeer, Remembered
from controlone_ha.core.model import Role, State
from controlone_ha.core.reasons import Evidence, reason
from controlone_ha.daemon.memory import Memory

EVERYTHING = Remembered(
    forced="active",
    forced_by="root",
    paused_by="ana",
    known=frozenset({"m1", "s2"}),
    peers=frozenset({KnownPeer(name="m1", role=Role.MASTER, state=State.ACTIVE, site="a")}),
    state=State.ACTIVE,
    reason=reason("forced_active", by="root"),
    covering=frozenset({"m1"}),
    cause=reason(
        "peer_failed",
        peer="m1",
        evidence=(Evidence(kind="link", text="link: reset", age=0.5),),
    ),
)


def test_F4_everything_survives_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "state" / "state.json"
    memory = Memory(file)
    memory.load()
    memory.since = 1795375907.25
    memory.save(EVERYTHING)
    again = Memory(file)
    assert again.load() == EVERYTHING
    assert again.since == memory.since
    assert (memory.incarnation, again.incarnation) == (1, 2)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"state": "asleep"}', b'{"known": 7}', b'{"peers": {"m1": {}}}', b"\xff"],
)
def test_a_damaged_file_is_kept_aside_and_does_not_stop_the_start(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(damage)
    assert Memory(file).load() == Remembered()
    assert (tmp_path / "state.unreadable").read_bytes() == damage
    assert "starting without memory" in caplog.text
    assert Memory(file).load() == Remembered()


def test_a_place_that_cannot_be_written_does_not_stop_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = Memory(Path("/proc/self/nowhere/state.json"))
    assert memory.load() == Remembered()
    assert memory.incarnation == 1
    assert "going on from memory" in caplog.text
    with pytest.raises(OSError):
        memory.save(EVERYTHING)
