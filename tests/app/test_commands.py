"""Command handlers without a pair: arguments that are refused, and what they tell the operator object to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

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
    force: frozenset[str] = frozenset()

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

    async def do(self, name: str, **arguments: Any) -> dict[str, Any]:
        found = handlers(cast(Wiring, self), cast(Operator, self))
        return await found[name](arguments)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(LifeCycle(tmp_path / "administrative.json", SystemClock()))


def test_every_handler_has_its_roles(desk: Desk) -> None:
    assert set(handlers(cast(Wiring, desk), cast(Operator, desk))) <= set(ROLES)


@pytest.mark.parametrize("name", ["start", "stop", "safe", "lock", "unlock", "calibrate"])
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


@pytest.mark.parametrize(("target", "names"), [("all", {"laser", "mean_photon"}), ("laser", {"laser"})])
async def test_calibrate_forces_what_was_named(desk: Desk, target: str, names: set[str]) -> None:
    await desk.do("calibrate", target=target)
    assert desk.force == names
    assert desk.done == [f"interrupt: calibration of {target} by command"]


async def test_calibrate_lists_what_there_is(desk: Desk) -> None:
    with pytest.raises(Refusal, match="target 'flux' is none of all, laser, mean_photon"):
        await desk.do("calibrate", target="flux")
    assert desk.force == frozenset()
