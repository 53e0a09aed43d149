"""A symbol source that runs at another period than the configured one is refused before any light."""

import asyncio
from pathlib import Path

from qmodd.soak import Run
from tests.app.pair import simulate


def test_another_symbol_period_is_refused_with_both_values(tmp_path: Path) -> None:
    heard: list[str] = []

    async def script(run: Run) -> None:
        await asyncio.sleep(5.0)
        heard.append(run.sites["alice"].core.life.why("activity"))

    simulate(tmp_path, script, settings={"symbol_period_ps": 16000.0})
    assert "8000 ps" in heard[0]
    assert "symbol_period_ps is 16000" in heard[0]
