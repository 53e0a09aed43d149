from __future__ import annotations

from typing import ClassVar

import pytest

from calibration.context import CalibrationContext, CalibrationRefused, Progress
from calibration.fit import FitRefused
from calibration.graph import Graph, bring_up, check_state
from calibration.procedure import Procedure
from calibration.procedures import alice_graph, bob_graph
from calibration.record import Record
from tests.calibration.fakes import FakeAlice


def procedure(title: str, *wanted: str, fails: int = 0, valid: float = 3600.0, out: str | None = None) -> Procedure:
    class Made(Procedure):
        name: ClassVar[str] = title
        needs: ClassVar[tuple[str, ...]] = wanted
        valid_s: ClassVar[float] = valid
        calls: ClassVar[list[str]] = []
        left: ClassVar[list[int]] = [fails]

        async def calibrate(self, context: CalibrationContext) -> Record:
            if self.left[0]:
                self.left[0] -= 1
                raise FitRefused("noise")
            self.calls.append("calibrate")
            return await self.make_record(context, {"x": 1.0}, {"x": [1.0]})

        async def apply(self, context: CalibrationContext, record: Record) -> None:
            self.calls.append("apply")

        async def check(self, context: CalibrationContext, record: Record) -> str | None:
            return out

    return Made()


def calls(p: Procedure) -> list[str]:
    return p.calls  # type: ignore[attr-defined, no-any-return]


async def test_only_what_is_out_is_redone_and_descendants_follow() -> None:
    a, b, c = procedure("a"), procedure("b", "a"), procedure("c", "b")
    graph, context = Graph([c, b, a]), FakeAlice().context()
    assert graph.names == ("a", "b", "c")
    await bring_up(graph, context)
    await bring_up(graph, context)
    assert calls(a) == calls(b) == ["calibrate", "apply"]
    await bring_up(graph, context, targets=["a"], force=["a"])
    assert context.store.invalid_reason("c") == "a was redone (asked for)"
    assert check_state(b, context, 30.0) == "a was redone (asked for)"
    done = await bring_up(graph, context)
    assert calls(c) == ["calibrate", "apply", "calibrate"]
    assert done["c"].parents == {"b": 2}


async def test_reasons_of_state() -> None:
    a, b = procedure("a", valid=10.0), procedure("b", "a")
    fake = FakeAlice()
    context = fake.context()
    graph = Graph([a, b])
    assert check_state(a, context, 30.0) == "never calibrated"
    await bring_up(graph, context)
    assert check_state(a, context, 30.0) is None
    assert check_state(a, context, 31.0) == "taken at 30.00 C, now 31.00 C"
    await bring_up(graph, context, targets=["a"], force=["a"])
    context.store.rollback("b") if len(context.store.history("b")) > 1 else None
    fake.time.now += 11
    assert "valid until" in str(check_state(a, context, 30.0))


async def test_a_rolled_back_parent_is_seen() -> None:
    a, b = procedure("a"), procedure("b", "a")
    context = FakeAlice().context()
    graph = Graph([a, b])
    await bring_up(graph, context, force=["a"])
    await bring_up(graph, context, force=["a"])
    context.store.rollback("a", "worse than before")
    assert check_state(b, context, 30.0) == "a was rolled back from version 2 to 1: worse than before"


async def test_data_check_and_retry_and_refusal() -> None:
    out, once, twice = procedure("out", out="drifted"), procedure("once", fails=1), procedure("twice", fails=2)
    context = FakeAlice().context()
    seen: list[Progress] = []
    context.progress = seen.append
    await bring_up(Graph([out, once]), context)
    await bring_up(Graph([out, once]), context)
    assert calls(out) == ["calibrate", "apply", "calibrate"]
    assert "again: noise" in [p.message for p in seen]
    with pytest.raises(CalibrationRefused, match="twice: noise"):
        await bring_up(Graph([twice]), context)
    assert context.store.active("twice") is None


def test_impossible_graphs_are_refused() -> None:
    with pytest.raises(ValueError, match="two procedures"):
        Graph([procedure("a"), procedure("a")])
    with pytest.raises(ValueError, match="not in the graph"):
        Graph([procedure("a", "b")])
    with pytest.raises(ValueError, match="circle"):
        Graph([procedure("a", "b"), procedure("b", "a")])


def test_the_graphs_of_both_sides_are_whole() -> None:
    assert alice_graph().prompt[-1] == "mean_photon"
    assert bob_graph().names[:2] == ("photodiode_zero", "heater_iv")
    assert "decoy" in alice_graph().descendants("laser")
    assert [p.name for p in bob_graph()] == list(bob_graph().names)
    assert alice_graph()["decoy"].name == "decoy"
