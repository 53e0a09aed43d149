"""Processes that set latches and are killed (SIGKILL) at random instants: what was set when they said so is still set.

python -m benchmarks.safety_latches [--kills 1000] [--seed 1]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qmodd.safety.latches import FILE, UNREADABLE, Latch, LatchStore

# Until it is killed, after its first latch, s: some ten writes.
LONGEST_S = 0.01
# As long as the ring of readings of a module is.
SNAPSHOT = tuple({"at": "2026-11-30T10:00:00.000+00:00", "sink_c": 30.0 + 0.1 * n, "rail_a": 0.1} for n in range(20))


@dataclass
class Kills:
    """`acknowledged`: latches that were set before the kill; `midway`: kills that left a half-written file beside."""

    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    unreadable: int = 0
    midway: int = 0


def _sets_latches(path: Path, told: int) -> None:
    """In a process of its own, until it is killed: one latch after the other, each told when it is set."""
    store, n = LatchStore(path), 0
    while True:
        store.set(Latch(f"latch-{n}", "drawn", "2026-11-30T10:00:00.000+00:00", ("rail_a",), SNAPSHOT))
        os.write(told, n.to_bytes(4, "little"))
        n += 1


def one(path: Path, rng: random.Random, kills: Kills) -> None:
    """A process, its death, and what is left."""
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            _sets_latches(path, mouth)
        os._exit(1)
    os.close(mouth)
    with os.fdopen(ear, "rb") as heard:
        said = heard.read(4)
        # The one sleep in real time: the process must be caught at any instant of its writes.
        time.sleep(rng.uniform(0.0, LONGEST_S))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        said += heard.read()
    count = len(said) // 4
    left = LatchStore(path)
    kills.kills += 1
    kills.acknowledged += count
    kills.midway += path.with_suffix(".new").exists()
    kills.unreadable += UNREADABLE in left
    kills.lost += sum(f"latch-{n}" not in left for n in range(count))


def kill(count: int, seed: int, directory: Path) -> Kills:
    rng, kills = random.Random(seed), Kills()
    for n in range(count):
        one(directory / str(n) / FILE, rng, kills)
    return kills


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--kills", type=int, default=1000)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="qmodd-latches-") as made:
        found = kill(a.kills, a.seed, Path(made))
    print(found)
    sys.exit(1 if found.lost or found.unreadable else 0)
