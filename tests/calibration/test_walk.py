"""The walk over random graphs: what it redoes, in which order, and what a refusal leaves behind."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.context import CalibrationContext, CalibrationRefused, LightRefused
from calibration.graph import Cause, check_state, redo, verify
from calibration.procedure import CheckResult, Disturbs, Procedure
from calibration.record import Record
from calibration.store import Kind
from tests.calibration.made_up import Bench


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    count = draw(st.integers(1, 7))
    names = [f"n{i}" for i in range(count)]
    return {
        n: tuple(draw(st.lists(st.sampled_from(names[:i]), unique=True, max_size=3))) if i else ()
        for i, n in enumerate(names)
    }


@st.composite
def troubled(draw: st.DrawFn) -> tuple[dict[str, tuple[str, ...]], dict[str, str], bool]:
    needs = draw(graphs())
    trouble = draw(st.dictionaries(st.sampled_from(list(needs)), st.sampled_from(["out", "bad", "invalid"])))
    return needs, trouble, draw(st.booleans())


def strike(bench: Bench, trouble: Mapping[str, str]) -> None:
    for name, what in trouble.items():
        if what == "invalid":
            bench.context.store.invalidate(name, "said so")
        else:
            make = CheckResult.out_of_spec if what == "out" else CheckResult.bad_data
            bench.parts[name].verdict = make(what, {"x": 2.0})


@given(troubled())
@settings(max_examples=120, deadline=None)
def test_invariants_of_a_walk(case: tuple[dict[str, tuple[str, ...]], dict[str, str], bool]) -> None:
    needs, trouble, aged = case
    bench = Bench(needs)
    assert set(bench.walk()) == set(needs)
    assert sorted(bench.done()) == sorted(needs)
    assert_parents_first(bench)
    strike(bench, trouble)
    if aged:
        bench.fake.time.now += 8 * 86_400.0
    before = bench.versions()
    bench.walk()
    after = bench.versions()
    redone = set(bench.done())
    assert_parents_first(bench)
    # Nothing that is in spec is redone: only what was in trouble and what rests on it.
    resting = {d for n in trouble for d in bench.graph.descendants(n)}
    assert set(trouble) <= redone <= set(trouble) | resting
    # Everything that rests on a redone one is redone, too, and afterwards everything is in spec.
    assert resting <= redone
    assert {n for n in needs if after[n] != before[n]} == redone
    assert all(bench.state(n).why is None for n in needs)
    # A second walk has nothing to do.
    bench.walk()
    assert bench.done() == []


@given(troubled(), st.data())
@settings(max_examples=80, deadline=None)
def test_a_refusal_keeps_what_was_stored(
    case: tuple[dict[str, tuple[str, ...]], dict[str, str], bool], data: st.DataObject
) -> None:
    needs, trouble, _ = case
    bench = Bench(needs)
    bench.walk()
    strike(bench, trouble)
    victim = data.draw(st.sampled_from(list(needs)))
    bench.parts[victim].broken = True
    before = {n: bench.context.store.active(n) for n in needs}
    with pytest.raises(CalibrationRefused) as e:
        bench.walk(force=[victim])
    assert e.value.procedure == victim
    assert bench.context.store.active(victim) == before[victim]
    for n in bench.graph.descendants(victim):
        # Not redone on top of what is broken.
        assert bench.context.store.active(n) == before[n] or bench.state(n).why is not None
    bench.parts[victim].broken = False
    bench.walk()
    assert all(bench.state(n).why is None for n in needs)


def assert_parents_first(bench: Bench) -> None:
    """When a calibration is made, the records that it rests on are those in force, made before it."""
    last: dict[str, int] = {}
    for i, (name, what) in enumerate(bench.log):
        if what == "calibrate":
            last[name] = i
    for name, i in last.items():
        assert all(last.get(need, -1) < i for need in bench.graph[name].needs)


@given(graphs(), st.data())
@settings(max_examples=60, deadline=None)
def test_the_plan_says_what_the_walk_does(needs: dict[str, tuple[str, ...]], data: st.DataObject) -> None:
    bench = Bench(needs)
    assert [d.name for d in bench.plan()] == list(bench.graph.names)
    bench.walk()
    assert bench.plan() == []
    force = data.draw(st.sets(st.sampled_from(list(needs))))
    planned = bench.plan(force=force)
    bench.walk(force=force)
    assert {d.name for d in planned} == set(bench.done())
    assert all(d.action == "calibrate" and d.cost_s == 2.0 for d in planned)


# age and temperature: renewed by a check


def test_a_passed_check_renews_what_is_out_by_age_or_temperature() -> None:
    bench = Bench({"a": ()})
    bench.walk()
    heard: list[Kind] = []
    bench.context.store.subscribe(lambda change: heard.append(change.kind))
    bench.fake.time.now += 8 * 86_400.0
    assert bench.state("a").cause is Cause.AGE
    bench.walk()
    assert bench.done() == []
    assert heard == [Kind.RENEWED]
    renewal = bench.context.store.renewal("a")
    assert renewal is not None
    assert (renewal.read, renewal.by) == ({"x": 1.0}, "automatic")
    assert renewal.temperatures_c == {"submount": 30.0, "object": 30.0, "sink": 27.0}
    assert bench.state("a").remaining_s == pytest.approx(7 * 86_400.0)
    assert bench.state("a", 31.0).cause is Cause.TEMPERATURE
    bench.context.submount.celsius = 31.0  # type: ignore[attr-defined]
    bench.walk()
    assert bench.done() == []
    assert bench.state("a", 31.0).why is None
    assert len(bench.context.store.history("a")) == 1


def test_without_a_check_that_renews_the_record_is_redone() -> None:
    bench = Bench({"a": ()}, a={"renews": False})
    bench.walk()
    bench.fake.time.now += 8 * 86_400.0
    assert bench.plan()[0].action == "calibrate"
    bench.walk()
    assert bench.done() == ["a"]


def test_what_is_due_soon_is_treated_as_out() -> None:
    bench = Bench({"a": (), "b": ()}, b={"renews": False})
    bench.walk()
    bench.walk(due={"a": "valid for 5 s more", "b": "valid for 5 s more"})
    assert bench.done() == ["b"]
    assert bench.context.store.renewal("a") is not None


def test_readings_that_make_no_sense_send_the_walk_to_the_parents() -> None:
    bench = Bench({"root": (), "left": ("root",), "right": ("root",), "tip": ("left", "right")})
    bench.walk()
    bench.parts["tip"].verdict = CheckResult.bad_data("nonsense")
    bench.parts["left"].verdict = CheckResult.in_spec()
    bench.walk()
    assert bench.done() == ["tip"]
    # The fault shows itself only after the walk has passed: in the readings of the tip.
    real = bench.graph["root"].check
    calls = [CheckResult.in_spec(), CheckResult.bad_data("moved")]

    async def later(context: CalibrationContext, record: Record) -> CheckResult:
        return calls.pop(0) if calls else await real(context, record)  # type: ignore[return-value]

    bench.graph["root"].check = later  # type: ignore[method-assign]
    bench.parts["tip"].verdict = CheckResult.bad_data("nonsense")
    bench.parts["left"].verdict = bench.parts["right"].verdict = CheckResult.in_spec()
    for name in ("left", "right"):
        bench.graph[name].check = Procedure.check.__get__(bench.graph[name])  # type: ignore[method-assign]
        type(bench.graph[name]).check = Procedure.check  # type: ignore[method-assign]
    bench.walk()
    assert bench.done() == ["root", "left", "right", "tip"]


def test_a_fit_that_is_refused_is_repeated_after_a_look_at_the_parents() -> None:
    bench = Bench({"a": (), "b": ("a",)})
    bench.walk()
    bench.parts["b"].broken = True
    with pytest.raises(CalibrationRefused, match="b: noise"):
        bench.walk(force=["b"])
    assert bench.done() == ["b", "b"]
    assert bench.done("check") == ["a", "a"]
    bench.parts["b"].broken, bench.parts["b"].refused = False, True
    with pytest.raises(CalibrationRefused, match="b: dark"):
        bench.walk(force=["b"])
    assert bench.done("check") == ["a"]


# what a record says about itself


def test_layout_and_firmware_are_named() -> None:
    bench = Bench({"a": ()})
    bench.context.firmware_sha256 = "a" * 64
    bench.walk()
    bench.context.firmware_sha256 = "b" * 64
    assert bench.state("a").why == (
        "a device or its firmware has changed since (firmware_sha256 aaaaaaaaaaaa, now bbbbbbbbbbbb)"
    )
    assert not bench.state("a").renewable
    bench.context.firmware_sha256 = ""
    assert bench.state("a").why is None
    bench.graph["a"].layout = 2  # type: ignore[misc]
    assert bench.state("a").why == "taken by an older version (layout 1, now 2)"
    record = bench.context.store.active("a")
    assert record is not None
    bench.context.store.append(record.model_copy(update={"layout": 3}))
    assert (
        check_state(bench.graph["a"], bench.context, 30.0) == "written by a newer version (layout 3; this one knows 2)"
    )


# deferred, held, margin


def test_deferred_calibrations_are_applied_but_not_made() -> None:
    bench = Bench({"a": (), "late": ("a",)}, late={"deferred": True})
    assert bench.graph.prompt == ("a",)
    assert set(bench.walk()) == {"a"}
    assert [(d.name, d.deferred) for d in bench.plan()] == [("late", True)]
    assert set(bench.walk(force=["late"])) == {"a", "late"}
    bench.walk()
    assert bench.log[-1] == ("late", "apply")
    assert set(bench.walk(targets=["late"])) == {"a", "late"}
    bench.walk(force=["a"])
    assert bench.done() == ["a"]
    assert bench.state("late").why == "a was redone (asked for)"
    with pytest.raises(ValueError, match="deferred"):
        Bench({"late": (), "b": ("late",)}, late={"deferred": True})


def test_margin_and_what_a_loop_holds() -> None:
    bench = Bench({"a": (), "held": ("a",)}, a={"renews": False}, held={"held": True, "valid_s": 60.0})
    bench.walk()
    bench.fake.time.now += 100.0
    assert [d.name for d in bench.plan()] == ["held"]
    assert bench.plan(in_service=True) == []
    found = bench.plan(in_service=True, margin_s=math.inf)
    assert found == []  # a week's record is never due before its last quarter
    bench.fake.time.now += 6 * 86_400.0
    found = bench.plan(in_service=True, margin_s=math.inf)
    assert [(d.name, d.action, d.cause) for d in found] == [
        ("a", "calibrate", Cause.AGE),
        ("held", "calibrate", Cause.RECORD),
    ]
    assert found[0].why == f"valid for {86_400 - 100} s more"
    assert found[0].remaining_s == found[1].remaining_s == pytest.approx(86_300.0)
    assert found[1].why == "rests on a"
    assert found[0].disturbs is Disturbs.KEYS


# in service


@pytest.fixture
def pair() -> Bench:
    bench = Bench({"a": (), "b": ("a",)})
    bench.walk()
    bench.log.clear()
    return bench


def test_a_check_in_service_moves_nothing(pair: Bench) -> None:
    assert asyncio.run(verify(pair.graph, pair.context, "b")).good
    assert pair.log == [("b", "check")]
    assert pair.context.store.renewal("b") is not None
    pair.parts["b"].verdict = CheckResult.out_of_spec("drifted by 3 mV")
    asyncio.run(verify(pair.graph, pair.context, "b"))
    assert pair.state("b").why == "data check: drifted by 3 mV"
    assert pair.state("a").why is None
    with pytest.raises(LookupError, match="not a record in force"):
        pair.context.store.renew(pair.context.store.renewal("b"))  # type: ignore[arg-type]


def test_bad_data_in_service_is_looked_for_in_the_parents(pair: Bench) -> None:
    pair.parts["a"].verdict = CheckResult.out_of_spec("moved")
    pair.parts["b"].verdict = CheckResult.bad_data("no fringe")
    asyncio.run(verify(pair.graph, pair.context, "b"))
    assert pair.state("a").why == "data check: moved"
    assert pair.state("b").why == "data check: no fringe"


def test_a_check_that_is_refused_is_bad_data_but_no_light_says_nothing(pair: Bench) -> None:
    for error, reason in ((CalibrationRefused("b", "at its rail"), "b: at its rail"), (LightRefused("away"), None)):

        async def check(context: CalibrationContext, record: Record, e: Exception = error) -> None:
            raise e

        pair.graph["b"].check = check  # type: ignore[method-assign]
        if reason is None:
            with pytest.raises(CalibrationRefused, match="b: away"):
                asyncio.run(verify(pair.graph, pair.context, "b"))
        else:
            assert asyncio.run(verify(pair.graph, pair.context, "b")).why == reason


def test_redo_in_service_invalidates_what_rests_on_it(pair: Bench) -> None:
    asyncio.run(redo(pair.graph, pair.context, "a", "it is time"))
    assert pair.log == [("a", "calibrate")]
    assert pair.state("b").why == "a was redone (it is time)"
