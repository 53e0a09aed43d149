"""Made-up calibrations that only note what is done with them, on a bench of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from calibration.context import CalibrationContext, LightRefused
from calibration.fit import FitRefused
from calibration.graph import Graph, State, bring_up, state_of
from calibration.plan import Due, plan
from calibration.procedure import CheckResult, Procedure
from calibration.record import Record
from tests.calibration.fakes import FakeAlice


@dataclass
class Part:
    """What a made-up calibration does next, and what was done with it."""

    verdict: CheckResult = field(default_factory=CheckResult.in_spec)
    broken: bool = False
    refused: bool = False
    log: list[tuple[str, str]] = field(default_factory=list)


def made(title: str, wanted: tuple[str, ...], part: Part, **attributes: object) -> Procedure:
    class Made(Procedure):
        name: ClassVar[str] = title
        needs: ClassVar[tuple[str, ...]] = wanted
        renews: ClassVar[bool] = True
        cost_s: ClassVar[float] = 2.0

        async def calibrate(self, context: CalibrationContext) -> Record:
            part.log.append((title, "calibrate"))
            if part.broken:
                raise FitRefused("noise")
            if part.refused:
                raise LightRefused("dark")
            part.verdict = CheckResult.in_spec({"x": 1.0})
            return await self.make_record(context, {"x": 1.0}, {"x": [float(len(part.log))]})

        async def apply(self, context: CalibrationContext, record: Record) -> None:
            part.log.append((title, "apply"))

        async def check(self, context: CalibrationContext, record: Record) -> CheckResult:
            part.log.append((title, "check"))
            return part.verdict

    for name, value in attributes.items():
        setattr(Made, name, value)
    return Made()


class Bench:
    """A graph of made-up calibrations, `needs` by name, and what happened to them in one list."""

    def __init__(self, needs: Mapping[str, tuple[str, ...]], **attributes: Mapping[str, object]) -> None:
        self.log: list[tuple[str, str]] = []
        self.parts = {n: Part(log=self.log) for n in needs}
        self.graph = Graph(made(n, w, self.parts[n], **attributes.get(n, {})) for n, w in needs.items())
        self.fake = FakeAlice()
        self.context = self.fake.context()

    def walk(self, **options: object) -> dict[str, Record]:
        self.log.clear()
        return asyncio.run(bring_up(self.graph, self.context, **options))  # type: ignore[arg-type]

    def done(self, what: str = "calibrate") -> list[str]:
        return [n for n, w in self.log if w == what]

    def versions(self) -> dict[str, int]:
        found = {n: self.context.store.active(n) for n in self.graph.names}
        return {n: r.version if r else 0 for n, r in found.items()}

    def state(self, name: str, submount_c: float = 30.0) -> State:
        return state_of(self.graph[name], self.context, submount_c)

    def plan(self, **options: object) -> list[Due]:
        return plan(self.graph, self.context, 30.0, **options)  # type: ignore[arg-type]
