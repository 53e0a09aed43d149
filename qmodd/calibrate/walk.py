"""Walks a module's calibration graph as far as it goes and keeps what became of each calibration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from calibration.context import CalibrationContext, CalibrationRefused, Progress
from calibration.graph import Graph, bring_up
from calibration.record import Record
from calibration.store import Change, Kind
from qmodd.report.dag import State

# Exit statuses.
DONE, REFUSED, WRONG, UNREACHABLE = range(4)


@dataclass
class Outcome:
    """One calibration after the walk; `why` is the reason of its state, `seconds` what it took."""

    name: str
    state: State = "unknown"
    why: str = ""
    seconds: float = 0.0
    record: Record | None = None

    @property
    def redone(self) -> bool:
        return self.state == "redone"

    def as_dict(self, side: str) -> dict[str, Any]:
        """For JSON, units beside the values."""
        record = self.record
        return {
            "side": side,
            "name": self.name,
            "state": self.state,
            "why": self.why,
            "redone": self.redone,
            "seconds": round(self.seconds, 3),
            "version": record.version if record else 0,
            "value": dict(record.value) if record else {},
            "units": record.units if record else {},
            "sigma": {n: record.sigma(n) for n in record.covariance_names} if record else {},
            "residual": record.residual_rms if record else None,
        }


Show = Callable[[str, Progress], None]


@dataclass
class Walk:
    """One side. `show` is told (side, progress) of what runs; `ended` (side, outcome) of each that has ended."""

    side: str
    graph: Graph
    context: CalibrationContext
    show: Show = lambda _side, _progress: None
    ended: Callable[[str, Outcome], None] = lambda _side, _outcome: None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _current: str = field(default="", init=False)
    _why: dict[str, str] = field(default_factory=dict, init=False)
    _mark_s: float = field(default=0.0, init=False)

    async def run(self, targets: Iterable[str] | None = None, force: Collection[str] = ()) -> dict[str, Outcome]:
        """Everything that can be made good of the targets (default: all) and what they rest on.

        A refused calibration keeps what rests on it waiting and nothing else. Raises KeyError for an unknown name, or a
        drivers.errors.DriverError.
        """
        wanted = self.graph.ancestors(self.graph.names if targets is None else targets)
        self.outcomes = {n: Outcome(n) for n in self.graph.names if n in wanted}
        self._mark_s = self.context.clock.monotonic()
        self.context.progress = self._progress
        self.context.store.subscribe(self._changed)
        try:
            await self._as_far_as_it_goes(set(force))
        finally:
            self.context.store.unsubscribe(self._changed)
        for outcome in self.outcomes.values():
            outcome.record = self.context.store.active(outcome.name)
        return self.outcomes

    async def _as_far_as_it_goes(self, force: set[str]) -> None:
        blocked: set[str] = set()
        while True:
            open_names = [n for n in self.outcomes if not self.graph.ancestors([n]) & blocked]
            self._wait(blocked)
            redone = {o.name for o in self.outcomes.values() if o.redone}
            try:
                if open_names:
                    await bring_up(self.graph, self.context, open_names, (force & set(open_names)) - redone)
                return
            except CalibrationRefused as e:
                name = e.procedure if e.procedure in open_names else self._current
                if name not in open_names:
                    raise
                blocked.add(name)
                reason = e.reason if name == e.procedure else str(e)
                self._end(name, "refused", reason)

    def _wait(self, blocked: set[str]) -> None:
        for outcome in self.outcomes.values():
            behind = [b for b in self.graph.names if b in blocked and b in self.graph.ancestors([outcome.name])]
            if outcome.name not in blocked and behind:
                outcome.state, outcome.why = "waiting", f"rests on {behind[0]}, which was refused"

    def _progress(self, progress: Progress) -> None:
        name = progress.procedure
        if progress.fraction == 0.0 and progress.message and name not in self._why:
            self._why[name] = progress.message
        self._current = name
        self.show(self.side, progress)
        if progress.fraction == 1.0 and progress.message == "still good" and name in self.outcomes:
            if self.outcomes[name].state == "unknown":
                self._end(name, "good", "still valid, and its check passes")
            self._mark_s = self.context.clock.monotonic()

    def _changed(self, change: Change) -> None:
        if change.kind is Kind.RECORD:
            self._end(change.name, "redone", self._why.get(change.name, ""))
        elif change.kind is Kind.RENEWED:
            self._end(change.name, "renewed", change.why)

    def _end(self, name: str, state: State, why: str) -> None:
        outcome = self.outcomes.setdefault(name, Outcome(name))
        now_s = self.context.clock.monotonic()
        outcome.state, outcome.why = state, why
        outcome.seconds += now_s - self._mark_s
        self._mark_s = now_s
        outcome.record = self.context.store.active(name)
        self.ended(self.side, outcome)
