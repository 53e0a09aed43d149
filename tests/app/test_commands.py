"""Command handlers without a pair: arguments that are refused, and what they tell the operator object to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from calibration.plan import Due
from calibration.procedure import Disturbs
from calibration.record import Record
from calibration.store import RecordStore
from qmodd.app.commands import handlers
from qmodd.app.operator import Operator
from qmodd.app.wiring import Wiring
from qmodd.clock import SystemClock
from qmodd.lifecycle import Administrative, LifeCycle
from qmodd.requests import ROLES, Refusal


@dataclass
class Desk:
    """Notes what the handlers ask of operator and engine."""

    life: LifeCycle
    done: list[str] = field(default_factory=list)
    keys_wanted: bool = True
    why_not_wanted: str = ""
    records: RecordStore = field(default_factory=RecordStore)
    events: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(listeners=[]))
    clock: SystemClock = field(default_factory=SystemClock)
    set_latches: dict[str, str] = field(default_factory=dict)
    out: tuple[str, ...] = ()

    async def stop_keying(self, why: str) -> None:
        self.done.append(f"stop keying: {why}")

    def interrupt(self, why: str) -> None:
        self.done.append(f"interrupt: {why}")

    def hold(self, why: str) -> None:
        self.done.append(f"hold: {why}")

    def release(self) -> None:
        self.done.append("release")

    def graph(self) -> Any:
        return SimpleNamespace(names=("laser", "mean_photon"))

    def due(self) -> list[Due]:
        return [Due(n, "over", "calibrate", Disturbs.KEYS, 1.0) for n in self.out]

    def request_calibration(self, names: frozenset[str], by: str) -> None:
        self.done.append(f"calibrate {', '.join(sorted(names))} for {by}")

    def request_walk(self, why: str) -> None:
        self.done.append(f"walk: {why}")

    def latches(self) -> dict[str, str]:
        return self.set_latches

    async def clear_latch(self, name: str, by: str) -> None:
        self.done.append(f"cleared {name} for {by}")

    async def do(self, name: str, **arguments: Any) -> dict[str, Any]:
        found = handlers(cast(Wiring, self), cast(Operator, self))
        return await found[name](arguments)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(LifeCycle(tmp_path / "administrative.json", SystemClock()))


def test_every_handler_has_its_roles(desk: Desk) -> None:
    assert set(handlers(cast(Wiring, desk), cast(Operator, desk))) <= set(ROLES)


@pytest.mark.parametrize(
    "name", ["start", "stop", "safe", "lock", "unlock", "calibrate", "rollback", "record", "clear-latch"]
)
async def test_unknown_argument_is_refused_without_effect(desk: Desk, name: str) -> None:
    with pytest.raises(Refusal, match="unknown argument 'colour'") as e:
        await desk.do(name, colour="red")
    assert e.value.code == "bad_arguments"
    assert desk.done == []
    assert desk.life.administrative is Administrative.UNLOCKED


@pytest.mark.parametrize("why", [5, "", "x" * 201, None, ["a"]])
async def test_reason_must_be_a_text(desk: Desk, why: Any) -> None:
    with pytest.raises(Refusal, match="why must be a text of 1 to 200 characters"):
        await desk.do("lock", why=why)
    assert desk.life.administrative is Administrative.UNLOCKED


async def test_stop_then_start(desk: Desk) -> None:
    answer = await desk.do("stop")
    assert (desk.keys_wanted, desk.why_not_wanted) == (False, "keys stopped by command")
    assert answer["administrative"]["value"] == "unlocked"
    await desk.do("start")
    assert (desk.keys_wanted, desk.why_not_wanted) == (True, "")
    assert desk.done == ["stop keying: keys stopped by command", "release"]


async def test_safe_holds(desk: Desk) -> None:
    await desk.do("safe")
    assert desk.done == ["hold: safe state by command; `start` leaves it"]


async def test_lock_is_durable_before_it_acts_and_stands_against_start(desk: Desk) -> None:
    answer = await desk.do("lock", why="fibre work")
    assert answer["administrative"]["value"] == "locked"
    assert LifeCycle(desk.life.path, SystemClock()).why("administrative") == "fibre work"
    assert desk.done == ["interrupt: locked: fibre work"]
    for name in ("start", "calibrate"):
        with pytest.raises(Refusal, match=rf"{name}: the module is locked \(fibre work\); unlock first") as e:
            await desk.do(name)
        assert e.value.code == "wrong_state"
    await desk.do("unlock")
    assert desk.life.why("administrative") == "unlocked by command"
    assert desk.done[-1] == "release"


@pytest.mark.parametrize(("target", "names"), [("all", "laser, mean_photon"), ("laser", "laser")])
async def test_calibrate_forces_what_was_named(desk: Desk, target: str, names: str) -> None:
    answer = await desk.do("calibrate", target=target)
    assert ", ".join(answer["asked"]) == names
    assert desk.done == [f"calibrate {names} for local"]


@pytest.mark.parametrize(("out", "done"), [((), []), (("laser",), ["calibrate laser for local"])])
async def test_calibrate_without_force_takes_what_is_out(desk: Desk, out: tuple[str, ...], done: list[str]) -> None:
    desk.out = out
    assert (await desk.do("calibrate", force=False))["asked"] == list(out)
    assert desk.done == done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "flux"}, "target 'flux' is none of all, laser, mean_photon"),
        ({"force": "yes"}, "force = 'yes': true or false is allowed"),
    ],
)
async def test_calibrate_says_what_is_allowed(desk: Desk, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        await desk.do("calibrate", **arguments)
    assert desk.done == []


def record(value: float) -> Record:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Record(
        name="laser",
        value={"power_w": value},
        covariance_names=("power_w",),
        covariance=((1e-8,),),
        residuals=(0.5,),
        created=now,
        valid_until=now + timedelta(days=7),
    )


async def test_rollback_goes_one_step_and_walks(desk: Desk) -> None:
    with pytest.raises(Refusal, match="no record before the active one") as e:
        await desk.do("rollback", calibration="laser")
    assert e.value.code == "wrong_state"
    desk.records.append(record(0.02))
    desk.records.append(record(0.03))
    answer = await desk.do("rollback", calibration="laser")
    assert (answer["calibration"], answer["version"]) == ("laser", 1)
    assert desk.done == ["walk: laser rolled back by local"]
    with pytest.raises(Refusal, match="calibration 'flux' is none of laser, mean_photon"):
        await desk.do("rollback", calibration="flux")


async def test_record_tells_any_version(desk: Desk) -> None:
    for value in (0.02, 0.03):
        desk.records.append(record(value))
    answer = await desk.do("record", calibration="laser", version=1)
    assert answer["value"] == {"power_w": 0.02}
    assert answer["units"] == {"power_w": "W"}
    assert answer["sigma"]["power_w"] == pytest.approx(1e-4)
    assert not answer["active"]
    assert "residuals" not in answer
    assert (await desk.do("record", calibration="laser"))["version"] == 2
    for version in (0, 3, True, "1"):
        with pytest.raises(Refusal, match=r"version = "):
            await desk.do("record", calibration="laser", version=version)
    with pytest.raises(Refusal, match="no record of 'flux'; there are laser"):
        await desk.do("record", calibration="flux")


async def test_a_latch_that_is_set_is_cleared(desk: Desk) -> None:
    with pytest.raises(Refusal, match="no latch 'phase'; set are: none"):
        await desk.do("clear-latch", latch="phase")
    desk.set_latches = {"phase": "gave up after five sweeps"}
    answer = await desk.do("clear-latch", latch="phase")
    assert (answer["cleared"], answer["was"]) == ("phase", "gave up after five sweeps")
    assert desk.done == ["cleared phase for local"]
