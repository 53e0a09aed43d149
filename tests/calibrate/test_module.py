"""`qmodd calibrate --config`: one module, its own files, no daemon, on the emulator's buses in simulated time."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qmodd import cli
from qmodd.calibrate.command import Result, calibrate_module
from qmodd.calibrate.session import NO_PEER
from qmodd.calibrate.walk import DONE, REFUSED, UNREACHABLE, WRONG
from qmodd.daemon import only_core
from qmodd.demo.compose import shipped
from qmodd.lifecycle import Administrative
from qmodd.soak import Run
from sim.scenario import Scenario
from tests.app.pair import build, outputs

Script = Callable[[Run], Awaitable[None]]


def arguments(*targets: str, **options: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"targets": list(targets), "force": False, "plan": False, **options})


class Bench:
    """One module on the bench; `walk` is one call of the command on it."""

    def __init__(self, run: Run, side: str) -> None:
        self.run, self.side = run, side
        self.core = run.sites[side].core
        self.told = ""

    async def walk(self, *targets: str, **options: Any) -> Result:
        out = io.StringIO()
        result = await calibrate_module(self.core, arguments(*targets, **options), Console(file=out, width=200))
        self.told = out.getvalue()
        return result

    def states(self, result: Result) -> dict[str, str]:
        return {o.name: o.state for _, o in result.outcomes()}


def on_the_bench(
    directory: Path,
    side: str,
    script: Callable[[Bench], Awaitable[None]],
    *faults: dict[str, Any],
    start_c: float = 29.9,
) -> None:
    """`script` on a module of a pair that is built, not started; its electronics tick as they do by themselves."""

    async def main(run: Run) -> None:
        ticking = asyncio.ensure_future(run.tick())
        try:
            await script(Bench(run, side))
        finally:
            ticking.cancel()

    start = {"alice_c": start_c, "bob_c": start_c}
    build(directory, main, scenario=Scenario.from_mapping({"start": start, "fault": list(faults)})).close()


def test_what_is_out_then_nothing_then_what_is_asked_for(tmp_path: Path) -> None:
    async def script(bench: Bench) -> None:
        planned = await bench.walk(plan=True)
        assert [d.name for d in planned.plans["alice"]] == list(bench.core.operator.graph().names)
        assert "never calibrated" in bench.told
        assert bench.core.records.names() == ()

        first = await bench.walk()
        assert first.exit_status() == DONE, first.as_dict()
        states = bench.states(first)
        # The plant was identified on the way to temperature, before the walk.
        assert {states.pop("tec_plant"), *states.values()} <= {"good", "redone"}
        assert set(states.values()) == {"redone"}
        assert "redone" in bench.told
        record = bench.core.records.active("laser")
        assert record is not None
        assert record.conditions.operator == "qmodd calibrate"
        assert len(record.conditions.firmware_sha256) == 64
        assert outputs(bench.run, "alice").dark

        again = await bench.walk("filter_peak")
        assert again.exit_status() == DONE
        assert "redone" not in bench.states(again).values()
        assert set(bench.states(again)) == bench.core.operator.graph().ancestors(["filter_peak"])

        forced = await bench.walk("carver_bias", force=True)
        assert bench.states(forced)["carver_bias"] == "redone"
        assert bench.states(forced)["laser"] in ("good", "renewed")
        assert bench.core.records.invalid_reason("mean_photon") is not None
        left = await bench.walk(plan=True)
        assert "mean_photon" in [d.name for d in left.plans["alice"]]
        assert "carver_bias" not in [d.name for d in left.plans["alice"]]

    on_the_bench(tmp_path, "alice", script)


def test_a_receiver_alone_leaves_what_needs_light_waiting(tmp_path: Path) -> None:
    async def script(bench: Bench) -> None:
        result = await bench.walk()
        assert result.exit_status() == REFUSED
        states = bench.states(result)
        assert states["heater_iv"] == "redone"
        refused = [o for _, o in result.outcomes() if o.state == "refused"]
        assert refused
        assert all(NO_PEER in o.why for o in refused)
        waiting = [o for _, o in result.outcomes() if o.state == "waiting"]
        assert all(o.why.startswith("rests on ") for o in waiting)
        assert "waiting" in states.values()
        report = result.as_dict()
        assert {r["name"] for r in report["refused"]} == {o.name for o in [*refused, *waiting]}

    on_the_bench(tmp_path, "bob", script)


def test_a_locked_module_stays_dark(tmp_path: Path) -> None:
    async def script(bench: Bench) -> None:
        bench.core.life.set_administrative(Administrative.LOCKED, "fibre work")
        result = await bench.walk()
        assert result.exit_status() == REFUSED
        assert result.failed == "QM-A-0001 is locked (fibre work); `unlock` it first"
        assert result.as_dict()["failed"] == result.failed
        assert outputs(bench.run, "alice").dark

    on_the_bench(tmp_path, "alice", script)


def test_interlocks_are_at_work_and_what_they_latch_keeps_it_dark(tmp_path: Path) -> None:
    async def script(bench: Bench) -> None:
        operator, run = bench.core.operator, bench.run
        operator.ramp.begin("drawn", hold_s=0.0)
        walking = asyncio.ensure_future(bench.walk())
        await asyncio.sleep(10.0)
        assert not operator.ramp.active  # the walk regulates, nobody ramps beside it
        run.world.alice.plant.state[3] = 80.0
        result = await walking
        assert result.exit_status() == REFUSED
        assert "heat sink at" in result.failed
        assert list(operator.latches()) == ["over-temperature"]
        assert outputs(run, "alice").dark
        assert "its own watchdog" in bench.core.life.inhibited["tec"]
        again = await bench.walk()
        assert again.exit_status() == REFUSED
        assert "over-temperature" in again.failed
        assert "`clear-latch` it first" in again.failed

    on_the_bench(tmp_path, "alice", script)


@pytest.mark.parametrize(
    ("kind", "target", "status", "message"),
    [
        ("unplug", "alice.ltc2672", UNREACHABLE, "heater_dac"),
        ("reversed", "alice.tec", REFUSED, "temperature"),
    ],
)
def test_what_fails_is_named_with_its_status(tmp_path: Path, kind: str, target: str, status: int, message: str) -> None:
    async def script(bench: Bench) -> None:
        result = await bench.walk()
        assert result.exit_status() == status
        assert message in result.failed
        assert outputs(bench.run, "alice").rails_off

    on_the_bench(tmp_path, "alice", script, {"at": 0.0, "what": kind, "on": target}, start_c=25.0)


def test_a_bug_is_not_dressed_up(tmp_path: Path) -> None:
    async def script(bench: Bench) -> None:
        def broken(_module: Any) -> None:
            raise ZeroDivisionError("a bug")

        bench.core.operator.check_parts = broken  # type: ignore[method-assign]
        with pytest.raises(ExceptionGroup) as e:
            await bench.walk()
        assert e.group_contains(ZeroDivisionError)
        assert outputs(bench.run, "alice").rails_off

    on_the_bench(tmp_path, "alice", script)


# from the command line


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A module's configuration with all its files, as on a controller."""
    made: list[Path] = []

    async def script(run: Run) -> None:
        made.append(run.directory / "alice")

    build(tmp_path, script).close()
    config = made[0] / "alice.toml"
    config.write_text(shipped("alice.toml").replace("192.168.10.2", "127.0.0.1").replace(",4880", ",9"))
    return config


def test_not_beside_the_daemon(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_core(site.parent / "state"):
        assert cli.main(["calibrate", "--config", str(site)]) == WRONG
    told = capsys.readouterr().err
    assert "another core runs on it: stop it first, or ask it: qmodctl do QM-A-0001 calibrate target=NAME" in told


def test_hardware_that_is_not_there(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This machine has none of the module's buses."""
    assert cli.main(["calibrate", "--config", str(site), "--json"]) == UNREACHABLE
    captured = capsys.readouterr()
    report = json.loads(captured.out.splitlines()[-1])
    assert not report["ok"]
    assert "platform" in report["failed"]
    assert report["records"] == []
    assert cli.main(["calibrate", "--config", str(site), "--plan"]) == UNREACHABLE


def test_wrong_configuration_and_wrong_target(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["calibrate", "--config", str(site), "arm_phase"]) == WRONG
    assert "no calibration 'arm_phase' of alice; there are" in capsys.readouterr().err
    site.write_text(site.read_text().replace("tec_target_c = 30.0", "tec_target_c = 300.0"))
    assert cli.main(["calibrate", "--config", str(site)]) == WRONG
    assert "tec_target_c" in capsys.readouterr().err
