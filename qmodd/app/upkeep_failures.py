"""What upkeep could not do: when it is tried again, and whether keys may go on meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from calibration.context import CalibrationContext
from calibration.graph import Cause, Graph, state_of
from qmodd.app.wiring import Wiring
from qmodd.lifecycle import Operational

RETRY_S = (30.0, 60.0, 120.0, 300.0, 600.0)
DEGRADED = "upkeep failed"


@dataclass(frozen=True)
class Failure:
    """`again_s` is monotonic."""

    why: str
    times: int
    again_s: float


@dataclass
class Failures:
    """By name of calibration. Keys go on only while every record that they rest on still holds; `submount_c` is the
    temperature last read."""

    wiring: Wiring
    graph: Graph
    context: CalibrationContext
    submount_c: float = math.nan
    failing: dict[str, Failure] = field(default_factory=dict)

    def waiting(self, now_s: float) -> set[str]:
        """Those whose next turn has not come."""
        return {n for n, f in self.failing.items() if f.again_s > now_s}

    def failed(self, names: Sequence[str], error: Exception) -> None:
        """Whoever is to blame waits for its next turn, longer every time; `names` where the error names nobody."""
        blamed = getattr(error, "procedure", "")
        why, now_s = str(error)[:480], self.wiring.clock.monotonic()
        for name in [blamed] if blamed in self.graph.names else names:
            times = self.failing[name].times + 1 if name in self.failing else 1
            pause = RETRY_S[min(times, len(RETRY_S)) - 1]
            self.failing[name] = Failure(why, times, now_s + pause)
            self.wiring.events.record("calibration.failed", {"name": name, "why": why, "again_in_s": pause})
        self.judge()

    def good(self, name: str) -> None:
        if self.failing.pop(name, None) is not None:
            self.judge()

    def judge(self) -> None:
        """May keys be made on what is stored, and does the module say that something is wrong?"""
        life, before = self.wiring.life, self.wiring.keys_blocked
        # What keys do not rest on is told as an event; the service is whole without it.
        prompt = {n: f for n, f in self.failing.items() if not self.graph[n].deferred}
        failures = "; ".join(dict.fromkeys(f.why for f in prompt.values()))
        out = "; ".join(f"{n} is out ({why})" for n in self.graph.prompt if (why := self._unusable(n)) is not None)
        blocked = f"no keys: {out}; upkeep failed: {failures}"[:480] if out and prompt else None
        if blocked != before:
            self.wiring.keys_blocked = blocked
            self.wiring.events.record("upkeep.keys_blocked", {"why": blocked or "no longer"})
        if prompt and life.operational is not Operational.DISABLED:
            life.set_operational(Operational.DEGRADED, f"{DEGRADED}: {failures}"[:480])
        elif life.operational is Operational.DEGRADED and life.why("operational").startswith(DEGRADED):
            life.set_operational(Operational.ENABLED, "upkeep has made good what was out")

    def _unusable(self, name: str) -> str | None:
        state = state_of(self.graph[name], self.context, self.submount_c)
        return None if self.graph[name].held and state.cause is Cause.AGE else state.why
