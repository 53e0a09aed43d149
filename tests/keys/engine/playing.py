"""Plays a script on a whole pair and checks that no key differs, whatever happened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from qmodd.keys.settings import EngineSettings
from sim.loop import run_simulated
from tests.keys.engine.world import SETTINGS, Link, Pair, boot_pair, make_pair, pool_bytes, same_keys, stopped, until

Script = Callable[[Pair], Awaitable[None]]


def play(path: Path, script: Script, settings: EngineSettings = SETTINGS, **boot: Any) -> Pair:
    """Boot a pair, ask both sides for keys, play the script, stop; whatever happened, no key differs."""

    async def main(loop: Any) -> Pair:
        a, b = make_pair(path, settings)
        if "link" not in boot:
            boot["link"] = Link()
        pair = boot_pair(a, b, loop, **boot)
        tasks = [asyncio.ensure_future(pair.alice.run()), asyncio.ensure_future(pair.bob.run())]
        await pair.alice.start_keying()
        await pair.bob.start_keying()
        await script(pair)
        assert not any(t.done() for t in tasks), [t.exception() for t in tasks if t.done()]
        await pair.alice.stop_keying("the test ends")
        await until(lambda: pair.alice.status.blocks_in_flight == pair.bob.status.blocks_in_flight == 0)
        await until(lambda: pair.alice._settled and pair.bob._settled)
        await asyncio.sleep(0.5)
        same_keys(a, b)
        assert pool_bytes(a) == pool_bytes(b)
        await stopped(*tasks)
        a.shut(), b.shut()
        return pair

    result: Pair = run_simulated(main)
    return result


def blocks(n: int) -> Script:
    async def script(pair: Pair) -> None:
        await until(lambda: len(pair.a.records) >= n and len(pair.b.records) >= n, 60)

    return script
