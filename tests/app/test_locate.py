"""The locate LED and the command `fru`: by signed request, on the emulated board, with keys undisturbed."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

from qmodd.soak import Run
from tests.app.pair import Noc, events, simulate, until


def test_the_led_blinks_for_as_long_as_asked_and_fru_tells_who_it_is(tmp_path: Path) -> None:
    seen: list[bool] = []
    said: list[dict[str, object]] = []

    async def script(run: Run) -> None:
        noc, rig = Noc(run), run.rigs["alice"]
        run.published = lambda _module, suffix, payload: (
            said.append({"suffix": suffix, **json.loads(payload)}) if suffix.startswith("reply/") else None
        )
        await until(run, lambda: bool(events(run, "alice", "module.identified")), 30.0, "identified")
        noc.do("alice", "fru")
        noc.do("alice", "locate", {"seconds": 6})
        noc.do("alice", "locate", {"seconds": 4000})
        for _ in range(40):
            await asyncio.sleep(0.25)
            seen.append(rig.watchdog.led)

    run = simulate(tmp_path, script)
    try:
        blinking, after = seen[:22], seen[28:]
        assert sum(a != b for a, b in itertools.pairwise(blinking)) >= 8
        assert not any(after)
        accepted = [e["command"] for e in events(run, "alice", "request.accepted")]
        assert accepted.count("fru") == 1
        assert run.sites["alice"].core.wiring.bay.report()["module"] == run.world.alice.serial
        assert events(run, "alice", "locate.asked")[0]["seconds"] == 6.0
        assert len(events(run, "alice", "locate.asked")) == 1, "4000 s are refused"
    finally:
        run.close()
