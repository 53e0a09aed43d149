"""Calibrations that were asked for, followed to their end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from calibration.record import Record
from calibration.store import RecordStore
from qmodd.app import following
from qmodd.app.following import Following
from qmodd.app.wiring import Wiring

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Module:
    """As much of the wiring as is listened to."""

    now_s: float = 0.0
    records: RecordStore = field(default_factory=RecordStore)
    events: Any = field(default_factory=lambda: SimpleNamespace(listeners=[]))
    life: Any = field(default_factory=lambda: SimpleNamespace(why=lambda _name: "walking"))

    @property
    def clock(self) -> Any:
        return SimpleNamespace(monotonic=lambda: self.now_s)

    def make(self, name: str) -> None:
        self.records.append(Record(name=name, value={}, created=NOW, valid_until=NOW + timedelta(days=1)))

    def event(self, event: str, **fields: Any) -> None:
        for listener in self.events.listeners:
            listener({"event": event, **fields})


@pytest.fixture
def module() -> Module:
    return Module()


def follow(module: Module, *names: str) -> Following:
    return Following(cast(Wiring, module), frozenset(names))


async def test_all_are_made(module: Module) -> None:
    told: list[tuple[float, str]] = []
    one = follow(module, "laser", "decoy")
    with one.listening():
        work = asyncio.ensure_future(one.until_done(lambda f, text: told.append((f, text))))
        for name in ("laser", "shutter", "decoy"):
            await asyncio.sleep(0)
            module.make(name)
        assert await work == {"made": {"laser": 1, "decoy": 1}, "failed": {}, "open": []}
    assert told[0] == (0.0, "walking")
    assert told[-1][0] == 0.5
    assert module.events.listeners == []
    module.make("laser")
    assert one.made["laser"] == 1


async def test_what_fails_is_told_with_its_reason(module: Module) -> None:
    one = follow(module, "laser", "decoy")
    with one.listening():
        module.make("laser")
        module.event("calibration.stored", name="laser")
        module.event("calibration.failed", name="decoy", why="decoy: no light")
        found = await one.until_done(lambda _f, _t: None)
    assert found == {"made": {"laser": 1}, "failed": {"decoy": "decoy: no light"}, "open": []}


async def test_made_after_all(module: Module) -> None:
    one = follow(module, "laser")
    with one.listening():
        module.event("session.failed", why="bus fault")
        assert one.failed == {"laser": "bus fault"}
        module.make("laser")
    assert (one.made, one.failed) == ({"laser": 1}, {})


async def test_patience_ends(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "TOLD_EVERY_S", 0.001)
    told: list[float] = []

    def tell(fraction: float, _text: str) -> None:
        told.append(fraction)
        module.now_s += 400.0

    one = follow(module, "laser")
    with one.listening():
        assert await one.until_done(tell) == {"made": {}, "failed": {}, "open": ["laser"]}
    assert told == [0.0, 0.0, 0.0]


async def test_nothing_asked_is_done_at_once(module: Module) -> None:
    assert await follow(module).until_done(lambda _f, _t: None) == {"made": {}, "failed": {}, "open": []}
