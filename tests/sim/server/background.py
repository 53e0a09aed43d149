"""A world server in a thread, for tests whose main thread is busy being a supervisor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sim.clock import RealClock
from sim.server.world_server import serve
from tests.sim.server.twins import Bench, StillWorld


@contextmanager
def served(run_dir: Path, **rigs: Bench) -> Iterator[dict[str, Any]]:
    """Endpoints of a running server; it is stopped at the end of the block."""
    up = threading.Event()
    found: dict[str, Any] = {}
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    def ready(endpoints: dict[str, Any]) -> None:
        found.update(endpoints)
        up.set()

    async def main() -> None:
        task = asyncio.create_task(serve(StillWorld(), rigs, run_dir, RealClock(), ready=ready))
        stop.append((asyncio.get_running_loop(), task))
        await asyncio.wait([task])

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert up.wait(5.0)
        yield found
    finally:
        loop, task = stop[0]
        loop.call_soon_threadsafe(task.cancel)
        thread.join(5.0)
        assert not thread.is_alive()
