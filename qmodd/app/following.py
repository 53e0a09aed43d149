"""Follows calibrations that were asked for until each is made or has failed, so that the client can be told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from calibration.store import Change, Kind
from qmodd.app.wiring import Wiring

# Often enough that the client's patience, renewed by each word, does not run out.
TOLD_EVERY_S = 2.0
PATIENCE_S = 900.0


@dataclass
class Following:
    """`asked` by name; `made` with their new versions, `failed` with the reason, as they come."""

    wiring: Wiring
    asked: Collection[str]
    made: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Nothing is missed that happens meanwhile: enter before asking."""
        self.wiring.records.subscribe(self._changed)
        self.wiring.events.listeners.append(self._event)
        try:
            yield
        finally:
            self.wiring.records.unsubscribe(self._changed)
            self.wiring.events.listeners.remove(self._event)

    async def until_done(self, tell: Callable[[float, str], None]) -> dict[str, Any]:
        """What became of them; those of neither kind are `open` when patience has run out."""
        clock = self.wiring.clock
        end = clock.monotonic() + PATIENCE_S
        while (left := self._open()) and clock.monotonic() < end:
            tell(1.0 - len(left) / max(1, len(self.asked)), self.wiring.life.why("activity") or left[0])
            self._news.clear()
            try:
                async with asyncio.timeout(TOLD_EVERY_S):
                    await self._news.wait()
            except TimeoutError:
                continue
        return {"made": dict(self.made), "failed": dict(self.failed), "open": self._open()}

    def _open(self) -> list[str]:
        return sorted(set(self.asked) - self.made.keys() - self.failed.keys())

    def _changed(self, change: Change) -> None:
        if change.kind is Kind.RECORD and change.name in self.asked and change.record is not None:
            self.made[change.name] = change.record.version
            self.failed.pop(change.name, None)
            self._news.set()

    def _event(self, entry: dict[str, Any]) -> None:
        """A refused calibration, in upkeep or at a start, ends what was asked for and what rests on it."""
        if entry["event"] not in ("calibration.failed", "session.failed"):
            return
        why = str(entry.get("why", ""))
        for name in self._open():
            self.failed[name] = why
        self._news.set()
