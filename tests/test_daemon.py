"""`qmodd core`, `uplink`, `run` as processes see them: signals, exit status, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from drivers.bus.libraries import Libraries
from drivers.registry import RegistryError
from qmodd import daemon
from qmodd.cli import main
from qmodd.clock import SystemClock
from qmodd.config import Config, ConfigError, load
from qmodd.crypto.suites import BadKeyFile
from qmodd.daemon import door_path, until_signalled
from qmodd.demo.compose import provision_site, shipped
from qmodd.keys.pool import PoolRefused
from qmodd.keys.store import StoreRefused
from qmodd.lifecycle import Administrative, LifeCycle
from qmodd.randomness import SeededRandomness
from qmodd.uplink.app import UplinkSettings
from sim.clock import RealClock
from sim.individuals import factory_record
from sim.inproc import InprocLibraries
from sim.rig import Rig, build_rigs
from sim.scenario import Scenario
from sim.world import World

# signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_cancels_and_waits_for_the_clean_up(number: signal.Signals) -> None:
    done: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            done.append("safe")

    assert await until_signalled(work) == 0
    assert done == ["safe"]


async def test_work_that_ends_by_itself_is_0() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    assert await until_signalled(work) == 0


@pytest.mark.parametrize(
    "fault",
    [
        ConfigError("alice.toml: control.x: no"),
        RegistryError("device 'tec': no"),
        BadKeyFile("alice.key: not a key file"),
        PoolRefused("pool.ring: not this pool"),
        StoreRefused("kek.key: mode 0644 lets others read it"),
    ],
    ids=lambda e: type(e).__name__,
)
async def test_what_the_configuration_still_hides_is_2_and_told_once(
    fault: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        raise fault

    assert await until_signalled(work) == 2
    assert set(capsys.readouterr().err.splitlines()) == {str(fault)}


async def test_a_fault_deep_in_the_task_tree_is_told_in_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    async def inner() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    async def fail() -> None:
        raise ConfigError("alice.toml: uplink.door: no")

    assert await until_signalled(inner) == 2
    assert capsys.readouterr().err == "alice.toml: uplink.door: no\n"


async def test_bug_is_not_swallowed() -> None:
    async def work() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ExceptionGroup) as e:
        await until_signalled(work)
    assert e.group_contains(ZeroDivisionError)


# a core over emulated electronics


class Emulated:
    """One module's configuration, with its electronics behind the bus libraries of this process."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(Scenario(seed=1), RealClock())
        self.rig: Rig = build_rigs(self.world, RealClock())["alice"]
        provision_site(directory, SystemClock().utc(), SeededRandomness(1))
        record = factory_record(self.world.alice.individual, 1)
        (directory / "alice" / "factory.json").write_text(json.dumps(record))
        text = shipped("alice.toml").replace("worker = true", "worker = false")
        text = text.replace("serial:/dev/ttyTEC", "serial:tec").replace("serial:/dev/ttyLASER", "serial:laser")
        text = text.replace("visa:TCPIP::192.168.10.2::hislip0,4880::INSTR", "visa:source")
        self.path = directory / "alice" / "alice.toml"
        self.path.write_text(text)
        found = InprocLibraries(self.rig)
        openers = Libraries(found.i2c, found.spi, found.serial, found.visa, found.tcp, threaded=False)
        monkeypatch.setattr("drivers.bus.real.real_libraries", lambda: openers)

    @property
    def config(self) -> Config:
        return load(self.path)

    def events(self) -> list[dict[str, Any]]:
        lines = (self.config.module.state_dir / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    return Emulated(tmp_path, monkeypatch)


def terminate_at(monkeypatch: pytest.MonkeyPatch, name: str, **fields: str) -> list[str]:
    """SIGTERM to this process when core reports the event; returns what is said, as it grows."""
    said: list[str] = []

    def listen(entry: dict[str, Any]) -> None:
        said.append(str(entry["event"]))
        if entry["event"] == name and all(entry[k] == v for k, v in fields.items()):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(daemon, "_to_log", listen)
    return said


def test_sigterm_leaves_a_core_dark(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of the start-up, when rails are on and the TEC works."""
    lit: list[bool] = []
    switch = emulated.rig.port.set_heater_rail

    def watched(on: bool) -> None:
        lit.append(on)
        switch(on)

    monkeypatch.setattr(emulated.rig.watchdog, "_set_heater_rail", watched)
    terminate_at(monkeypatch, "state.activity", value="calibrating")
    assert main(["core", "--config", str(emulated.path)]) == 0
    # The watchdog was tried, the rail was switched by the self-test; it is off in the end.
    assert lit[0] is True
    assert lit[-1] is False
    assert emulated.rig.port.heater_rail() == (0.0, 0.0)
    assert emulated.world.alice.laser()[0] is False
    events = emulated.events()
    assert [e["event"] for e in (events[0], events[-1])] == ["core.started", "core.stopped"]
    assert any(e["event"] == "state.activity" and e["why"] == "the daemon is stopping" for e in events)
    assert not emulated.rig.watchdog.tripped


def test_locked_core_drives_nothing(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    life = LifeCycle(emulated.config.module.state_dir / "administrative.json", SystemClock())
    life.set_administrative(Administrative.LOCKED, "fibre work")
    terminate_at(monkeypatch, "state.operational")
    assert main(["core", "--config", str(emulated.path)]) == 0
    assert emulated.rig.port.heater_rail() == (0.0, 0.0)
    assert any(e["event"] == "state.activity" and "fibre work" in e["why"] for e in emulated.events())


def test_configuration_may_demand_a_lock(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    emulated.path.write_text(emulated.path.read_text().replace("unlocked = true", "unlocked = false"))
    terminate_at(monkeypatch, "state.operational")
    assert main(["core", "--config", str(emulated.path)]) == 0
    assert any("module.unlocked = false" in str(e.get("why")) for e in emulated.events())
    assert LifeCycle(emulated.config.module.state_dir / "administrative.json", SystemClock()).administrative is (
        Administrative.LOCKED
    )


def test_key_that_others_may_read_is_2(emulated: Emulated, capsys: pytest.CaptureFixture[str]) -> None:
    kek = emulated.config.pair.key_encryption_key
    kek.chmod(0o644)
    assert main(["core", "--config", str(emulated.path)]) == 2
    assert f"{kek}: mode 0644 lets others read it" in capsys.readouterr().err


# uplink, and both


def test_uplink_gets_the_networks_part_of_the_configuration(
    emulated: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[UplinkSettings] = []

    async def run_uplink(settings: UplinkSettings, randomness: object, report: object) -> None:
        got.append(settings)

    monkeypatch.setattr("qmodd.uplink.app.run_uplink", run_uplink)
    niceness: list[int] = []
    monkeypatch.setattr("os.nice", niceness.append)
    assert main(["uplink", "--config", str(emulated.path)]) == 0
    assert niceness == [daemon.UPLINK_NICENESS]
    (settings,) = got
    assert settings.serial == "QM-A-0001"
    assert settings.door == door_path(emulated.config)
    assert settings.broker.url == "mqtt://127.0.0.1:1883"
    assert (settings.relay_listen, settings.relay_connect) == ("127.0.0.1:7700", None)


class Uplinks:
    """Stands in for the interpreter: notes that it was started, tells the test, does what it is told."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, then: str, first: str = ":") -> None:
        self.log = directory / "starts"
        script = directory / "python"
        script.write_text(f'#!/bin/sh\n{first}\necho "$@" >> {self.log}\nkill -USR1 $PPID\n{then}\n')
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        monkeypatch.setattr(daemon, "RESTART_UPLINK_S", 0.001)

    @property
    def starts(self) -> list[str]:
        return self.log.read_text().splitlines()


def run_both(
    emulated: Emulated, monkeypatch: pytest.MonkeyPatch, uplinks: Uplinks, wanted: int, command: str = "run"
) -> int:
    """`qmodd run` with a core that only waits; SIGTERM when the uplink has been started `wanted` times."""

    async def core(config: Config) -> None:
        seen = 0

        def started() -> None:
            nonlocal seen
            seen += 1
            if seen == wanted:
                os.kill(os.getpid(), signal.SIGTERM)

        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, started)
        await asyncio.Event().wait()

    monkeypatch.setattr(daemon, "_core", core)
    return main([command, "--config", str(emulated.path)])


def test_run_starts_a_dead_uplink_again(
    emulated: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uplinks = Uplinks(tmp_path, monkeypatch, "exit 3")
    assert run_both(emulated, monkeypatch, uplinks, 3) == 0
    assert len(uplinks.starts) >= 3
    assert set(uplinks.starts) == {f"-m qmodd uplink --config {emulated.path}"}
    assert "uplink ended with status 3; starting it again" in caplog.text


def test_run_takes_its_uplink_along_when_it_stops(
    emulated: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_term = f"trap 'echo stopped >> {tmp_path}/starts; kill $!; exit 0' TERM"
    uplinks = Uplinks(tmp_path, monkeypatch, "wait", first=f"{on_term}\nsleep 30 &")
    assert run_both(emulated, monkeypatch, uplinks, 1) == 0
    assert uplinks.starts[-1] == "stopped"


def test_events_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "qmodd"):
        daemon._to_log(
            {"seq": 1, "t": "now", "module": "m", "event": "session.failed", "why": "tec", "again_in_s": 1.0}
        )
    assert caplog.messages == ["session.failed why=tec again_in_s=1.0"]
