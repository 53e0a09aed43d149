"""`qmodd safe-outputs` on emulated electronics: a module whose core is gone goes dark and says so."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from drivers.bus.libraries import Libraries
from drivers.bus.pool import BusPool
from qmodd.cli import main
from qmodd.clock import SystemClock
from qmodd.config import load
from qmodd.daemon import only_core
from qmodd.demo.compose import SERIALS, provision_site, shipped
from qmodd.module import Module
from qmodd.randomness import SeededRandomness
from qmodd.safe_outputs import DONE, NOT_SAFE, UNREACHABLE, WRONG, Darkness, how_core_ended, make_dark
from qmodd.safety.latches import FILE, LatchStore
from sim.clock import RealClock
from sim.inproc import InprocLibraries
from sim.rig import build_rigs
from sim.scenario import Scenario
from sim.world import World
from tests.app.pair import build, outputs


class Left:
    """Alice as a killed core leaves her: everything on. `run` is `qmodd safe-outputs`."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(Scenario(seed=1), RealClock())
        self.rig = build_rigs(self.world, RealClock())["alice"]
        provision_site(directory, SystemClock().utc(), SeededRandomness(1))
        text = shipped("alice.toml")
        text = text.replace("serial:/dev/ttyTEC", "serial:tec").replace("serial:/dev/ttyLASER", "serial:laser")
        text = text.replace("visa:TCPIP::192.168.10.2::hislip0,4880::INSTR", "visa:source")
        # None of these is needed to make a module dark.
        for line in ('key_encryption_key = "secrets/kek.key"', 'identity = "secrets/module.key"'):
            assert line in text
            text = text.replace(line, line.split("=")[0] + '= "credential:of-the-service"')
        self.path = directory / "alice" / "alice.toml"
        self.path.write_text(text)
        found = InprocLibraries(self.rig)
        self.openers = Libraries(found.i2c, found.spi, found.serial, found.visa, found.tcp, threaded=False)
        monkeypatch.setattr("drivers.bus.real.real_libraries", lambda: self.openers)

    @property
    def state_dir(self) -> Path:
        return load(self.path, "none", given=False).module.state_dir

    def light(self) -> None:
        """Rails, laser, heaters and attenuator on, as core would; its process ends without another word."""
        asyncio.run(self._light())
        assert self.rig.port.heater_rail()[0] > 3.0
        assert self.rig.port.laser()[0] is True
        assert self.rig.port.voa_loss_db() < 10.0

    async def _light(self) -> None:
        module = Module(load(self.path, "none", given=False), BusPool(self.openers, SystemClock().monotonic))
        await module.open()
        for level in (True, False):
            await module.platform.write("watchdog", level)
        for line in ("laser_enable", "heater_enable"):
            await module.platform.write(line, True)
        self.rig.port.set_laser(True, 193.4145e12, 10.0)
        await module.heaters.set_current("phase", 0.01)
        await module.biases.set_voltage("voa", 0.0)
        self.rig.port.source.start_run()
        self.rig.port.source.schedule(0, "KEY")
        for device in module.devices.values():
            await device.close()
        await module.buses.close()

    def run(self, *more: str) -> int:
        return main(["safe-outputs", "--config", str(self.path), *more])

    def events(self) -> list[dict[str, Any]]:
        file = self.state_dir / "events.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Left:
    for name in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    return Left(tmp_path, monkeypatch)


def test_everything_that_was_on_is_off(left: Left, capsys: pytest.CaptureFixture[str]) -> None:
    left.light()
    assert left.run("--json") == DONE
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["serial"] == SERIALS["alice"]
    assert told["ok"] is True
    assert set(told["outputs"].values()) == {"safe"}
    assert {"laser", "heater_dac", "bias_dac", "symbol_source", "tec"} == told["outputs"].keys()
    assert told["tec"] == "held; taken down by its own watchdog within 30 s and its ramp"
    port = left.rig.port
    assert port.heater_rail() == (0.0, 0.0)
    assert port.laser()[0] is False
    assert port.source.mode_at(port.source.run_now()[1]) == "OFF"
    assert port.voa_loss_db() >= 35.0


def test_twice_is_as_once(left: Left) -> None:
    left.light()
    assert left.run() == DONE
    assert left.run() == DONE


def test_by_hand_is_an_event_that_the_noc_gets(left: Left) -> None:
    assert left.run() == DONE
    (event,) = left.events()
    assert (event["event"], event["why"], event["ok"]) == ("outputs.made_safe", "asked for by hand", True)
    with sqlite3.connect(left.state_dir / "outbox.db") as outbox:
        ((suffix, payload),) = outbox.execute("SELECT suffix, payload FROM rows").fetchall()
    outbox.close()
    assert suffix == "event"
    assert json.loads(payload)["event"] == "outputs.made_safe"


def test_after_a_core_that_ended_well_nothing_is_told(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_RESULT", "success")
    assert left.run() == DONE
    assert left.events() == []


def test_after_a_core_that_was_killed_it_says_how(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SERVICE_RESULT", "signal"), ("EXIT_CODE", "killed"), ("EXIT_STATUS", "KILL")):
        monkeypatch.setenv(name, value)
    assert left.run() == DONE
    assert left.events()[-1]["why"] == "core ended: signal, killed KILL"


def test_a_running_core_keeps_its_outputs(left: Left, capsys: pytest.CaptureFixture[str]) -> None:
    left.light()
    with only_core(left.state_dir):
        assert left.run() == NOT_SAFE
    assert "another core runs on it, and has the outputs; stop it first" in capsys.readouterr().err
    assert left.rig.port.laser()[0] is True


def test_an_output_that_does_not_answer_is_named_and_the_others_are_safe(
    left: Left, capsys: pytest.CaptureFixture[str]
) -> None:
    left.light()

    def gone(*_: object) -> Any:
        raise OSError(5, "Input/output error")

    left.openers = Libraries(
        left.openers.i2c, left.openers.spi, left.openers.serial, gone, left.openers.tcp, threaded=False
    )
    assert left.run("--json") == UNREACHABLE
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "Input/output error" in told["outputs"].pop("symbol_source")
    assert set(told["outputs"].values()) == {"safe"}
    assert left.rig.port.laser()[0] is False
    assert "symbol_source" in str(left.events()[-1]["not_safe"])


def test_a_silent_platform_does_not_keep_the_rest_lit(left: Left) -> None:
    left.light()
    opened = left.openers.i2c

    def without_the_platform(number: int) -> Any:
        if number == 2:
            raise OSError(6, "No such device or address")
        return opened(number)

    left.openers = Libraries(
        without_the_platform, left.openers.spi, left.openers.serial, left.openers.visa, left.openers.tcp, threaded=False
    )
    assert left.run() in (NOT_SAFE, UNREACHABLE)
    port = left.rig.port
    assert port.source.mode_at(port.source.run_now()[1]) == "OFF"
    assert port.voa_loss_db() >= 35.0


def test_what_reads_on_is_latched_for_the_next_core(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lit(module: object) -> tuple[dict[str, str], dict[str, str]]:
        return {"laser": "the laser emits 13.0 dBm with its enable low"}, {}

    monkeypatch.setattr("qmodd.safety.contradictions", lit)
    assert left.run() == NOT_SAFE
    (latch,) = LatchStore(left.state_dir / FILE).all()
    assert (latch.name, latch.cause) == ("output-not-safe", "the laser emits 13.0 dBm with its enable low")
    assert [e["event"] for e in left.events()] == ["latch.set", "outputs.made_safe"]


def test_a_disk_that_takes_nothing_is_no_reason_to_stay_lit(
    left: Left, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> Any:
        raise OSError(28, "No space left on device")

    left.light()
    monkeypatch.setattr("qmodd.daemon.open", full, raising=False)
    monkeypatch.setattr("qmodd.events.EventLog", full)
    assert left.run() == DONE
    said = capsys.readouterr().err
    assert "core's lock cannot be had ([Errno 28] No space left on device); going on without it" in said
    assert "this could not be recorded: [Errno 28] No space left on device" in said
    assert left.rig.port.laser()[0] is False


def test_a_wrong_configuration_is_2(left: Left, capsys: pytest.CaptureFixture[str]) -> None:
    left.path.write_text("[module\n")
    assert left.run() == WRONG
    assert "not TOML" in capsys.readouterr().err


def test_a_tec_without_a_watchdog_of_its_own_is_switched_off(left: Left, capsys: pytest.CaptureFixture[str]) -> None:
    left.path.write_text(left.path.read_text().replace("watchdog_s = 30.0", "watchdog_s = 0.0"))
    assert left.run("--json") == DONE
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["tec"] == "switched off"


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_both_kinds_of_module(name: str, tmp_path: Path) -> None:
    """Of a receiver detectors and shutters are outputs, too."""

    async def script(run: Any) -> None:
        ticking = asyncio.ensure_future(run.tick())
        found = await make_dark(run.sites[name].core.module)
        ticking.cancel()
        assert found.status == DONE, found
        assert outputs(run, name).dark

    build(tmp_path, script).close()


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({}, "asked for by hand"),
        ({"SERVICE_RESULT": "success", "EXIT_CODE": "exited", "EXIT_STATUS": "0"}, None),
        (
            {"SERVICE_RESULT": "watchdog", "EXIT_CODE": "killed", "EXIT_STATUS": "ABRT"},
            "core ended: watchdog, killed ABRT",
        ),
        ({"SERVICE_RESULT": "oom-kill"}, "core ended: oom-kill,"),
    ],
)
def test_how_core_ended(environ: dict[str, str], why: str | None) -> None:
    assert how_core_ended(environ) == why


def test_reads_on_is_worse_than_silent() -> None:
    assert Darkness(silent={"rail": "no answer"}).status == UNREACHABLE
    assert Darkness(silent={"rail": "no answer"}, on={"laser": "emits"}).status == NOT_SAFE
