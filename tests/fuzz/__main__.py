"""``python -m tests.fuzz [--inputs N] [--seconds S] [--seed N] [TARGET …]``: mutates and feeds.

A crash is any error that a parser does not document, a hang more than ``HANG`` seconds for one
input, growth more than ``GROWTH`` MiB of the process after its first inputs. Inputs that crash are
kept in ``build/fuzz`` and tried first the next time. The counts of every run are added up in
``build/fuzz/counts.json``. Same seed, same inputs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import sys
import time
from pathlib import Path

from tests.fuzz.targets import FuzzTarget, targets

PLACE = Path(__file__).resolve().parents[2] / "build" / "fuzz"
COUNTS = PLACE / "counts.json"
HANG = 2
GROWTH = 64
MOST = 4096
BATCH = 2000
_INTERESTING = (b"\x00", b"\xff", b"\x80", b"\r\n", b"{", b"}", b"[", b"]", b'"', b"\\", b"null",
                b"true", b"-1", b"1e999", b"4294967296", b"\xc3\xa9", b"\xed\xa0\x80", b"../",
                b"%s", b"99999999999999999999", b'"n":', b",", b":", b"NaN")  # fmt: skip


class HangError(BaseException):
    """One input took too long."""


def _on_alarm(_number: int, _frame: object) -> None:
    raise HangError


def mutate(chance: random.Random, seeds: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """Return an input made of one or two seeds by a few random changes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(1 + int(chance.expovariate(0.7))):
        size = len(data)
        at = chance.randrange(size + 1)
        kind = chance.randrange(8)
        if kind == 0 and size:
            data[at % size] = chance.randrange(256)
        elif kind == 1 and size:
            data[at % size] ^= 1 << chance.randrange(8)
        elif kind == 2:
            data[at:at] = chance.choice(words)
        elif kind == 3:
            del data[at : at + 1 + chance.randrange(16)]
        elif kind == 4:
            end = at + 1 + chance.randrange(32)
            data[at:at] = data[at:end] * (1 + chance.randrange(3))
        elif kind == 5:
            other = chance.choice(seeds)
            start = chance.randrange(len(other) + 1)
            data[at:] = other[start:]
        elif kind == 6:
            data[at:at] = chance.randbytes(1 + chance.randrange(8))
        else:
            end = at + len(chance.choice(words))
            data[at:end] = chance.choice(words)
    return bytes(data[:MOST])


def resident() -> float:
    """Return the resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


def fuzz(target: FuzzTarget, inputs: int, seconds: float, seed: int) -> tuple[int, list[str]]:
    """Feed one target; return how many inputs it had and what went wrong."""
    chance = random.Random(f"{seed} {target.name}")
    words = (*_INTERESTING, *target.words)
    seeds = list(target.seeds)
    kept = sorted((PLACE / target.name).glob("*.bin"))
    tries = [file.read_bytes() for file in kept] + seeds
    found: dict[str, str] = {}
    count, end = 0, time.monotonic() + seconds
    signal.signal(signal.SIGALRM, _on_alarm)
    before = 0.0
    while count < inputs and time.monotonic() < end and len(found) < 20:
        for _ in range(BATCH):
            data = tries.pop() if tries else mutate(chance, seeds, words)
            count += 1
            signal.alarm(HANG)
            try:
                target.run(data)
            except target.allowed:
                pass
            except HangError:
                _keep(target, data, "hang", found)
            except Exception as error:  # noqa: BLE001 - the point of it all
                _keep(target, data, f"{type(error).__name__}: {error}"[:200], found)
            finally:
                signal.alarm(0)
        if not before and count >= 20 * BATCH:
            before = resident()
    if before and resident() - before > GROWTH:
        found["growth"] = f"{resident() - before:.0f} MiB more after {count} inputs"
    return count, [f"{target.name}: {text}" for text in found.values()]


def _keep(target: FuzzTarget, data: bytes, text: str, found: dict[str, str]) -> None:
    place = PLACE / target.name
    place.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(data).hexdigest()[:16]
    kind = text.partition(":")[0] + text[-40:]
    if kind not in found:
        found[kind] = f"{text} ({place / name}.bin)"
        (place / f"{name}.bin").write_bytes(data)


def read_counts() -> dict[str, dict[str, int]]:
    """Return inputs and crashes of all runs so far, by target."""
    try:
        counts: dict[str, dict[str, int]] = json.loads(COUNTS.read_text())
    except (OSError, ValueError):
        return {}
    return counts


def main() -> int:
    """Fuzz the chosen targets; exit status 1 when something was found."""
    parser = argparse.ArgumentParser(description="Fuzzing")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args()
    wrong: list[str] = []
    for target in targets():
        if given.targets and target.name not in given.targets:
            continue
        started = time.monotonic()
        count, found = fuzz(target, given.inputs, given.seconds, given.seed)
        rate = count / max(0.001, time.monotonic() - started)
        print(f"{target.name}: {count} inputs, {rate:.0f}/s, {len(found)} problems", flush=True)
        for text in found:
            print(f"  {text}", flush=True)
        wrong += found
        PLACE.mkdir(parents=True, exist_ok=True)
        counts = read_counts()
        row = counts.setdefault(target.name, {"inputs": 0, "crashes": 0})
        row["inputs"] += count
        row["crashes"] = len(found)
        COUNTS.write_text(json.dumps(counts, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
