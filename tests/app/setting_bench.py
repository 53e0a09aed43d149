"""A desk of settings without a pair, with what outlives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qmodd.app.setting_desk import SettingDesk
from qmodd.clock import SystemClock
from qmodd.config import Config
from qmodd.events import EventLog
from qmodd.keys.conversation import Blocking
from qmodd.messages import Setting
from qmodd.outbox import Outbox
from qmodd.settings.overrides import FILE
from qmodd.settings.tree import Value, value_of
from tests.settings.files import config

LIMIT, TARGET, RAMP = "keys.store_limit", "control.tec_target_c", "safety.tec_ramp_c_per_s"
HOT, MODE = "safety.submount_max_c", "keys.reconciliation"


@dataclass
class Bench:
    """A desk, what outlives it (directory, outbox, events), and its file."""

    directory: Path
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    outbox: Outbox = field(default_factory=lambda: Outbox(None))
    role: str = "alice"
    told: list[Config] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.events = EventLog(None, SystemClock(), "QM-A-1")
        self.start()

    def start(self) -> None:
        """As core does."""
        self.file = config(self.directory, self.role, **self.sections)
        self.desk = SettingDesk(self.file, SystemClock(), Blocking(False))
        self.desk.follow(self.outbox, self.events)
        self.desk.effects.append(self.told.append)
        self.desk.open()

    async def set(self, path: str, value: Any) -> dict[str, Any]:
        return await self.desk.set(path, {"value": value})

    async def undo(self, path: str) -> dict[str, Any]:
        return await self.desk.undo({"setting": path})

    def value(self, path: str) -> Value:
        return value_of(self.desk.in_force, path)

    def retained(self) -> dict[str, Setting]:
        found = {s.removeprefix("settings/"): p for s, p in self.outbox.retained("settings/").items() if p}
        return {path: Setting.model_validate_json(p) for path, p in found.items()}

    def kept(self) -> bytes:
        path = self.directory / FILE
        return path.read_bytes() if path.exists() else b""

    def recorded(self, name: str) -> list[dict[str, Any]]:
        return [e for e in self.events.entries if e["event"] == name]

    def close(self) -> None:
        self.events.close()
        self.outbox.close()
