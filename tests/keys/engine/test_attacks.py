"""An attacker on the service channel: drops, changes, repeats, injects, reorders, plays back. Never different keys."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.keys.engine.playing import blocks, play
from tests.keys.engine.world import Pair, until


def flip(frame: bytes, at: int) -> bytes:
    changed = bytearray(frame)
    changed[at % len(frame)] ^= 1
    return bytes(changed)


def drop_some(rng: random.Random, d: int, n: int, frame: bytes) -> Sequence[bytes]:
    return [] if rng.random() < 0.1 else [frame]


def change_some(rng: random.Random, d: int, n: int, frame: bytes) -> Sequence[bytes]:
    return [flip(frame, rng.randrange(len(frame)))] if rng.random() < 0.1 else [frame]


def repeat_some(rng: random.Random, d: int, n: int, frame: bytes) -> Sequence[bytes]:
    return [frame, frame] if rng.random() < 0.2 else [frame]


def inject_some(rng: random.Random, d: int, n: int, frame: bytes) -> Sequence[bytes]:
    return [b"S" + rng.randbytes(40), frame, b"", b"junk"] if rng.random() < 0.2 else [frame]


@pytest.mark.parametrize("attack", [drop_some, change_some, repeat_some, inject_some], ids=lambda f: f.__name__)
def test_an_attacker_on_the_channel_never_gets_different_keys(ram_path: Path, attack: Any) -> None:
    async def script(pair: Pair) -> None:
        rng = random.Random(7)
        pair.wire.tamper = lambda d, n, frame: attack(rng, d, n, frame)
        await asyncio.sleep(6)
        pair.wire.tamper = lambda d, n, frame: [frame]
        before = len(pair.a.records)
        await until(lambda: len(pair.a.records) > before)

    play(ram_path, script)


def test_reordered_frames(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        held: list[bytes] = []

        def swap(d: int, n: int, frame: bytes) -> Sequence[bytes]:
            if d == 1 and n % 17 == 0:
                held.append(frame)
                return []
            return [frame, held.pop()] if held and d == 1 else [frame]

        pair.wire.tamper = swap
        await asyncio.sleep(5)
        pair.wire.tamper = lambda d, n, frame: [frame]
        before = len(pair.a.records)
        await until(lambda: len(pair.a.records) > before)

    play(ram_path, script)


def test_old_hellos_played_back_cost_a_handshake_only(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await blocks(1)(pair)
        round_before = pair.a.pool.next_round
        hellos = [(d, f) for d, f in pair.wire.record if f[:1] == b"H"]
        assert len(hellos) >= 2
        for d, frame in hellos[:3] * 2:
            pair.wire.queues[1 - d].append(frame)
            pair.wire.wake()
            await asyncio.sleep(0.3)
        n = len(pair.a.records)
        await until(lambda: len(pair.a.records) > n)
        assert pair.a.pool.next_round - round_before < 20

    play(ram_path, script)
