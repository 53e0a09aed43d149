"""What upkeep sees of the keys: when a block ends, how far the open one is, how long keys were away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from qmodd.app.wiring import Wiring
from qmodd.lifecycle import Activity


@dataclass
class KeyWatch:
    """Hears events and the life cycle inside `listening`. Times are monotonic seconds."""

    wiring: Wiring
    last_outage_s: float | None = None
    _closed: asyncio.Event = field(default_factory=asyncio.Event)
    _began_s: float | None = None
    _since: datetime | None = None
    _stopped_s: float | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        events, life = self.wiring.events, self.wiring.life
        events.listeners.append(self._heard)
        life.listeners.append(self._lived)
        try:
            yield
        finally:
            events.listeners.remove(self._heard)
            life.listeners.remove(self._lived)
            self.wiring.keys_blocked = None

    async def block_end(self) -> None:
        """Returns with the end of the block that is open now."""
        self._closed.clear()
        await self._closed.wait()

    def block_left_s(self) -> float | None:
        """Until the open block is full, at the rate so far; None while that cannot be said."""
        done = self.wiring.engine.status.block_progress
        if self._began_s is None or done <= 0.0:
            return None
        return (self.wiring.clock.monotonic() - self._began_s) * (1.0 - done) / done

    def stopping(self) -> None:
        """Keys are about to be stopped: an outage begins where there are any."""
        if self.wiring.life.activity is Activity.KEYING:
            self._stopped_s = self.wiring.clock.monotonic()

    def _heard(self, entry: dict[str, Any]) -> None:
        if entry["event"] == "block.closed":
            self._began_s = self.wiring.clock.monotonic()
            self._closed.set()

    def _lived(self, name: str, value: Any) -> None:
        if name != "activity" or value.value != Activity.KEYING:
            return
        now_s = self.wiring.clock.monotonic()
        if self._since != value.since:
            # A run has begun; another reason for the same activity keeps its time.
            self._since, self._began_s = value.since, now_s
        if self._stopped_s is not None:
            self.last_outage_s = now_s - self._stopped_s
            self._stopped_s = None
            self.wiring.events.record("upkeep.keys_back", {"outage_s": round(self.last_outage_s, 3)})
